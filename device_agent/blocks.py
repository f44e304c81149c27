"""A job in blocks: what one child process does, in which order, and what comes of it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Union

from device_agent.protocol import (
    Failure,
    JobSpec,
    Power,
    Profile,
    ProtocolError,
    Scored,
    Sustained,
    TimingBlock,
    blob_path,
    from_json,
    job_file_path,
    to_json,
)

Outcome = Union[TimingBlock, Scored, Profile, Power, Sustained, Failure]
# By stage, but for a failure, which any stage may end with.
_OUTCOMES: dict[str, Any] = {
    "timing": TimingBlock,
    "scoring": Scored,
    "profile": Profile,
    "power": Power,
    "sustained": Sustained,
    "failure": Failure,
}


@dataclass(frozen=True)
class Block:
    """One child process: a ``stage`` of ``JobEvent`` for the model at place ``model``; the rest counts from 0."""

    stage: str
    model: int
    process: int = 0
    attempt: int = 0

    @property
    def name(self) -> str:
        """The stem of this block's files."""
        return f"{self.stage}-{self.model}-{self.process}" + (f"-{self.attempt}" if self.attempt else "")


@dataclass(frozen=True)
class Request:
    """All that a child needs to know; ``started_s`` is the monotonic clock, which all processes share, at its start."""

    home: str
    job_id: str
    spec: JobSpec
    block: Block
    daemon_pid: int
    started_s: float
    root: str = "/"

    @property
    def model_path(self) -> str:
        """The model's file."""
        return blob_path(self.home, self.spec.models[self.block.model].sha256)

    @property
    def samples_name(self) -> str:
        """The name of the job's file that has the block's raw samples."""
        return f"{self.block.name}.npy"

    def file_path(self, name: str) -> Path:
        """Return where the job's file ``name`` goes."""
        return Path(job_file_path(self.home, self.job_id, name))

    @property
    def wall_s(self) -> float:
        """How long the block may take; the sustained pass takes its time in addition."""
        return self.spec.limits.wall_s + self._sustained_s

    @property
    def extra_cpu_s(self) -> int:
        """How much processor time the block may take beyond the limit: all threads of the sustained pass."""
        return math.ceil(self._sustained_s * self.spec.models[self.block.model].threads)

    @property
    def _sustained_s(self) -> float:
        return self.spec.measure.sustained_s if self.block.stage == "sustained" else 0.0

    @property
    def scratch(self) -> Path:
        """The folder for what blocks leave to each other, and the host does not get."""
        return Path(job_file_path(self.home, self.job_id, "x")).parent.with_name("blocks")


def outcome_to_bytes(outcome: Outcome) -> bytes:
    """Return the content of a block's result file."""
    kind = next(name for name, cls in _OUTCOMES.items() if isinstance(outcome, cls))
    return json.dumps({kind: to_json(outcome)}).encode()


def outcome_from_bytes(content: bytes) -> Outcome:
    """Return what ``outcome_to_bytes`` wrote."""
    for kind, value in json.loads(content).items():
        outcome: Outcome = from_json(_OUTCOMES[kind], value)
        return outcome
    raise ProtocolError(f"a block's result is empty; expected one of {', '.join(_OUTCOMES)}")
