"""What a host can ask for: the methods of ``protocol`` and their parameters."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from device_agent.blobs import BlobStore
from device_agent.errors import Refusal
from device_agent.files import disk_full, free_bytes, is_disk_full
from device_agent.jobs import JobQueue
from device_agent.lease import Leases
from device_agent.protocol import (
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    JobSpec,
    ProtocolError,
    check_job_id,
    check_range,
    check_sha256,
    from_json,
    shown,
    to_json,
)
from device_agent.sensors import read_device_state

# Each missing one takes about 200 bytes of the answer.
_MOST_HASHES = 5000
_TOKEN = re.compile(r"[0-9a-f]{32}")

Message = dict[str, Any]


class Peer(Protocol):
    """The host at the other end of a connection, as a method sees it."""

    @property
    def descriptor(self) -> int:
        """The connection's file descriptor."""

    def notify(self, method: str, params: Message) -> None:
        """Tell the host something before the answer. Raises ConnectionLost."""

    def if_unheard(self, undo: Callable[[], None]) -> None:
        """Have ``undo`` called if the host is gone when it is sent the answer."""


@dataclass(frozen=True)
class NoParams:
    """Of ``status`` and ``device.state``."""


@dataclass(frozen=True)
class LeaseAcquire:
    """Of ``lease.acquire``."""

    holder: str
    ttl_s: float
    wait: bool = False
    token: str = ""

    def __post_init__(self) -> None:
        if self.token and not _TOKEN.fullmatch(self.token):
            raise ProtocolError(f"token is {shown(self.token)}; expected 32 lower-case hexadecimal digits")
        if not (0 < len(self.holder) <= 200 and self.holder.isprintable()):
            raise ProtocolError(f"holder is {shown(self.holder)}; expected 1 to 200 printable characters")
        check_range("ttl_s", self.ttl_s, 1, 3600)


@dataclass(frozen=True)
class LeaseNamed:
    """Of ``lease.renew`` and ``lease.release``."""

    token: str


@dataclass(frozen=True)
class BlobMissing:
    """Of ``blob.missing``; the lease of ``token`` does not expire meanwhile."""

    sha256: tuple[str, ...]
    token: str = ""

    def __post_init__(self) -> None:
        check_range("number of hashes", len(self.sha256), 0, _MOST_HASHES)
        for sha256 in self.sha256:
            check_sha256("sha256", sha256)


@dataclass(frozen=True)
class BlobCommit:
    """Of ``blob.commit``; the lease of ``token`` does not expire meanwhile."""

    sha256: str
    size_bytes: int
    token: str = ""

    def __post_init__(self) -> None:
        check_sha256("sha256", self.sha256)
        check_range("size_bytes", self.size_bytes, 0, 1 << 50)


@dataclass(frozen=True)
class JobFind:
    """Of ``job.find``."""

    spec: JobSpec


@dataclass(frozen=True)
class JobSubmit(JobFind):
    """Of ``job.submit``."""

    token: str = ""


@dataclass(frozen=True)
class JobNamed:
    """Of ``job.result``, ``job.acknowledge`` and ``job.cancel``."""

    job_id: str

    def __post_init__(self) -> None:
        check_job_id(self.job_id)


@dataclass(frozen=True)
class JobFollow(JobNamed):
    """Of ``job.follow``."""

    after: int = 0


class Methods:
    """``protocol``'s methods, by name."""

    def __init__(self, home: Path, blobs: BlobStore, queue: JobQueue, leases: Leases, root: Path) -> None:
        self._home = home
        self._blobs = blobs
        self._queue = queue
        self._leases = leases
        self._root = root
        self._by_name: dict[str, tuple[type, Callable[[Any, Peer], Message]]] = {
            "status": (NoParams, self._status),
            "device.state": (NoParams, lambda params, peer: to_json(read_device_state(self._root))),
            "lease.acquire": (LeaseAcquire, self._lease_acquire),
            "lease.renew": (LeaseNamed, self._lease_renew),
            "lease.release": (LeaseNamed, self._lease_release),
            "blob.missing": (BlobMissing, self._blob_missing),
            "blob.commit": (BlobCommit, self._blob_commit),
            "job.find": (JobFind, self._job_find),
            "job.submit": (JobSubmit, self._job_submit),
            "job.follow": (JobFollow, self._job_follow),
            "job.result": (JobNamed, lambda params, peer: to_json(queue.result(params.job_id))),
            "job.acknowledge": (JobNamed, self._job_acknowledge),
            "job.cancel": (JobNamed, lambda params, peer: {"state": queue.cancel(params.job_id)}),
        }

    def call(self, name: str, params: object, peer: Peer) -> Message:
        """Return the result of a method.

        Raises:
            Refusal: with the error's code, also for an unknown method, parameters of another form, and a full disk.
            ConnectionLost: if ``peer`` left before there was a result.
        """
        if name not in self._by_name:
            raise Refusal(METHOD_NOT_FOUND, f'unknown method "{name[:80]}"; known: {", ".join(self._by_name)}')
        kind, method = self._by_name[name]
        try:
            parsed: Any = from_json(kind, params)
        except ProtocolError as error:
            raise Refusal(INVALID_PARAMS, f"{name}: {error}") from error
        try:
            return method(parsed, peer)
        except OSError as error:
            if is_disk_full(error):
                raise disk_full(self._home) from error
            raise

    def _status(self, params: NoParams, peer: Peer) -> Message:
        lease = self._leases.shown()
        return {
            "home": str(self._home),
            "free_bytes": free_bytes(self._home),
            "lease": to_json(lease) if lease else None,
            "jobs": self._queue.listed(),
        }

    def _lease_acquire(self, params: LeaseAcquire, peer: Peer) -> Message:
        token = self._leases.acquire(
            params.holder, params.ttl_s, params.token, peer.descriptor if params.wait else None
        )
        peer.if_unheard(lambda: self._leases.release(token))
        return {"token": token}

    def _lease_renew(self, params: LeaseNamed, peer: Peer) -> Message:
        self._leases.renew(params.token)
        return {}

    def _lease_release(self, params: LeaseNamed, peer: Peer) -> Message:
        self._leases.release(params.token)
        return {}

    def _blob_missing(self, params: BlobMissing, peer: Peer) -> Message:
        with self._leases.used(params.token):
            missing = self._blobs.missing(params.sha256, self._leases.current_token())
            return {"missing": [self._blobs.partial(sha256) for sha256 in missing]}

    def _blob_commit(self, params: BlobCommit, peer: Peer) -> Message:
        with self._leases.used(params.token):
            self._blobs.commit(params.sha256, params.size_bytes)
            self._blobs.make_room(self._queue.blobs_in_use() | {params.sha256}, self._leases.current_token())
        return {}

    def _job_find(self, params: JobFind, peer: Peer) -> Message:
        job_id, state = self._queue.find(params.spec)
        return {"job_id": job_id, "state": state}

    def _job_submit(self, params: JobSubmit, peer: Peer) -> Message:
        job = self._queue.submit(params.spec, params.token)
        return {"job_id": job.job_id, "state": job.state}

    def _job_follow(self, params: JobFollow, peer: Peer) -> Message:
        for event in self._queue.follow(params.job_id, params.after):
            peer.notify("job.event", to_json(event))
        return {"state": self._queue.state(params.job_id)}

    def _job_acknowledge(self, params: JobNamed, peer: Peer) -> Message:
        self._queue.acknowledge(params.job_id)
        return {}
