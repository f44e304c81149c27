"""What an agent answers, as types: each is checked as it is read, so that nothing else in the host has to be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from device_agent.protocol import (
    JOB_STATES,
    JobFile,
    Lease,
    ProtocolError,
    check_file_name,
    check_job_id,
    check_range,
    check_sha256,
)
from pipeline.errors import DeviceError

MAX_JOB_FILE_BYTES = 1 << 30


@dataclass(frozen=True)
class Done:
    """The answer to a request that has no result."""


@dataclass(frozen=True)
class JobSummary:
    """A job that the agent keeps."""

    job_id: str
    name: str
    state: str
    holder: str = ""


@dataclass(frozen=True)
class AgentStatus:
    """What the agent is about."""

    home: str
    free_bytes: int
    jobs: tuple[JobSummary, ...]
    lease: Optional[Lease] = None  # noqa: UP045  from_json reads this form


@dataclass(frozen=True)
class GrantedLease:
    """The answer to ``lease.acquire``."""

    token: str


@dataclass(frozen=True)
class MissingBlob:
    """Content that the agent lacks, and how much of it was begun."""

    sha256: str
    part_bytes: int = 0
    part_sha256: Optional[str] = None  # noqa: UP045  from_json reads this form

    def __post_init__(self) -> None:
        check_sha256("missing sha256", self.sha256)
        check_range("part_bytes", self.part_bytes, 0, 1 << 50)


@dataclass(frozen=True)
class MissingBlobs:
    """The answer to ``blob.missing``."""

    missing: tuple[MissingBlob, ...]


@dataclass(frozen=True)
class JobState:
    """The state a job is in."""

    state: str

    def __post_init__(self) -> None:
        if self.state not in JOB_STATES:
            raise ProtocolError(f"job state is {self.state!r}; expected one of {', '.join(JOB_STATES)}")


@dataclass(frozen=True)
class AcceptedJob(JobState):
    """The answer to ``job.submit``."""

    job_id: str

    def __post_init__(self) -> None:
        super().__post_init__()
        check_job_id(self.job_id)


@dataclass(frozen=True)
class FoundJob:
    """The answer to ``job.find``; the state is "unknown" when there is no such job."""

    job_id: str
    state: str

    def __post_init__(self) -> None:
        check_job_id(self.job_id)
        if self.state != "unknown":
            JobState(self.state)


def checked_file(file: JobFile, device: str) -> JobFile:
    """Return ``file`` if a path can be made from its name, and it is not too large to be fetched.

    Raises:
        DeviceError: otherwise.
    """
    try:
        check_file_name("file name", file.name)
        check_range(f"size_bytes of {file.name}", file.size_bytes, 0, MAX_JOB_FILE_BYTES)
    except ProtocolError as error:
        raise DeviceError(f"{device} announces a file that is not allowed: {error}") from error
    return file
