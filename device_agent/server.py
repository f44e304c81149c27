"""The daemon: a unix socket, a thread for each connection, and the methods of ``protocol``."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from device_agent import __version__, log
from device_agent.blobs import BlobStore
from device_agent.errors import Refusal
from device_agent.home import disk_full, free_bytes, is_disk_full
from device_agent.jobs import JobQueue
from device_agent.probe import Probes
from device_agent.protocol import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    INVALID_REQUEST,
    MAX_MESSAGE_BYTES,
    METHOD_NOT_FOUND,
    PARSE_ERROR,
    PROTOCOL_VERSION,
    Hello,
    JobSpec,
    ProtocolError,
    check_job_id,
    check_range,
    check_sha256,
    decode,
    encode,
    from_json,
    to_json,
)
from device_agent.sensors import read_device

# Else the error that carries it back might be too long to be sent.
_LONGEST_ID = 1000
# Each missing one takes about 200 bytes of the answer.
_MOST_HASHES = 5000

Message = dict[str, Any]
Notify = Callable[[str, Message], None]


class ConnectionLost(Exception):
    """The host is gone, or does not listen any more."""


@dataclass(frozen=True)
class NoParams:
    """Of ``status``."""


@dataclass(frozen=True)
class BlobMissing:
    """Of ``blob.missing``."""

    sha256: tuple[str, ...]

    def __post_init__(self) -> None:
        check_range("number of hashes", len(self.sha256), 0, _MOST_HASHES)
        for sha256 in self.sha256:
            check_sha256("sha256", sha256)


@dataclass(frozen=True)
class BlobCommit:
    """Of ``blob.commit``."""

    sha256: str
    size_bytes: int

    def __post_init__(self) -> None:
        check_sha256("sha256", self.sha256)
        check_range("size_bytes", self.size_bytes, 0, 1 << 50)


@dataclass(frozen=True)
class JobSubmit:
    """Of ``job.submit``."""

    spec: JobSpec


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
    """What a host can ask for: ``protocol``'s methods, by name."""

    def __init__(self, home: Path, blobs: BlobStore, queue: JobQueue) -> None:
        self._home = home
        self._blobs = blobs
        self._queue = queue
        self._by_name: dict[str, tuple[type, Callable[[Any, Notify], Message]]] = {
            "status": (NoParams, self._status),
            "blob.missing": (BlobMissing, self._blob_missing),
            "blob.commit": (BlobCommit, self._blob_commit),
            "job.submit": (JobSubmit, self._job_submit),
            "job.follow": (JobFollow, self._job_follow),
            "job.result": (JobNamed, lambda params, notify: to_json(queue.result(params.job_id))),
            "job.acknowledge": (JobNamed, self._job_acknowledge),
            "job.cancel": (JobNamed, lambda params, notify: {"state": queue.cancel(params.job_id)}),
        }

    def call(self, name: str, params: object, notify: Notify) -> Message:
        """Return the result of a method.

        Raises:
            Refusal: with the error's code, also for an unknown method, parameters of another form, and a full disk.
        """
        if name not in self._by_name:
            raise Refusal(METHOD_NOT_FOUND, f'unknown method "{name[:80]}"; known: {", ".join(self._by_name)}')
        kind, method = self._by_name[name]
        try:
            parsed: Any = from_json(kind, params)
        except ProtocolError as error:
            raise Refusal(INVALID_PARAMS, f"{name}: {error}") from error
        try:
            return method(parsed, notify)
        except OSError as error:
            if is_disk_full(error):
                raise disk_full(self._home) from error
            raise

    def _status(self, params: NoParams, notify: Notify) -> Message:
        return {"home": str(self._home), "free_bytes": free_bytes(self._home), "jobs": self._queue.listed()}

    def _blob_missing(self, params: BlobMissing, notify: Notify) -> Message:
        return {"missing": [self._blobs.partial(sha256) for sha256 in self._blobs.missing(params.sha256)]}

    def _blob_commit(self, params: BlobCommit, notify: Notify) -> Message:
        self._blobs.commit(params.sha256, params.size_bytes)
        return {}

    def _job_submit(self, params: JobSubmit, notify: Notify) -> Message:
        job = self._queue.submit(params.spec)
        return {"job_id": job.job_id, "state": job.state}

    def _job_follow(self, params: JobFollow, notify: Notify) -> Message:
        for event in self._queue.follow(params.job_id, params.after):
            notify("job.event", to_json(event))
        return {"state": self._queue.state(params.job_id)}

    def _job_acknowledge(self, params: JobNamed, notify: Notify) -> Message:
        self._queue.acknowledge(params.job_id)
        return {}


class Connection:
    """One host: reads a request, answers it, reads the next."""

    def __init__(self, connected: socket.socket, methods: Methods, hello: Callable[[], Hello]) -> None:
        self._socket = connected
        self._methods = methods
        self._hello = hello

    def serve(self) -> None:
        """Speak with the host until it is gone; this is the connection's thread."""
        try:
            self._notify("hello", to_json(self._hello()))
            with self._socket.makefile("rb") as stream:
                for line in _lines(stream):
                    self._send(self._answer(line))
        except (ConnectionLost, ConnectionError):
            pass  # A host may leave at any moment; its job goes on.
        except Exception:  # noqa: BLE001 - a bug, and the daemon lives on
            log.bug("connection ended by a bug")
        finally:
            self._socket.close()

    def _answer(self, line: bytes | None) -> bytes:
        request_id: object = None
        try:
            request = _request(line)
            request_id = request["id"]
            result = self._methods.call(request["method"], request.get("params", {}), self._notify)
            return encode({"jsonrpc": "2.0", "id": request_id, "result": result})
        except Refusal as refusal:
            return _error(request_id, refusal.code, str(refusal))
        except ConnectionLost:
            raise
        except Exception as error:  # noqa: BLE001 - a bug, and the daemon lives on
            log.bug("request ended by a bug")
            return _error(request_id, INTERNAL_ERROR, f"{type(error).__name__}; the agent's log has the traceback")

    def _notify(self, method: str, params: Message) -> None:
        self._send(encode({"jsonrpc": "2.0", "method": method, "params": params}))

    def _send(self, line: bytes) -> None:
        try:
            self._socket.sendall(line)
        except OSError as error:
            raise ConnectionLost from error


def _lines(stream: BinaryIO) -> Iterator[bytes | None]:
    """Yield each line; None for one that is too long, which is skipped without being kept."""
    while True:
        line = stream.readline(MAX_MESSAGE_BYTES + 1)
        if not line:
            return
        if len(line) <= MAX_MESSAGE_BYTES:
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = stream.readline(MAX_MESSAGE_BYTES)
        yield None


def _request(line: bytes | None) -> Message:
    if line is None:
        raise Refusal(INVALID_REQUEST, f"message has more than {MAX_MESSAGE_BYTES} bytes; send files by SFTP")
    try:
        request = decode(line)
    except ProtocolError as error:
        raise Refusal(PARSE_ERROR, str(error)) from error
    if request.get("jsonrpc") != "2.0":
        raise Refusal(INVALID_REQUEST, 'message has no "jsonrpc": "2.0"')
    if not isinstance(request.get("method"), str):
        raise Refusal(INVALID_REQUEST, "method is missing or no string")
    if not isinstance(request.get("id"), (str, int)):
        raise Refusal(INVALID_REQUEST, "id is missing or neither string nor integer")
    if isinstance(request["id"], str) and len(request["id"]) > _LONGEST_ID:
        raise Refusal(INVALID_REQUEST, f"id has {len(request['id'])} characters; at most {_LONGEST_ID} are allowed")
    return request


def _error(request_id: object, code: int, message: str) -> bytes:
    return encode({"jsonrpc": "2.0", "id": request_id, "error": {"code": code, "message": message[:10000]}})


def read_hello(home: Path, probes: Probes) -> Hello:
    """Return the agent's first words; the first time this starts each runtime once."""
    return Hello(PROTOCOL_VERSION, __version__, str(home), free_bytes(home), read_device(), probes.all())


def serve(home: Path, listener: socket.socket, ending: int, probes: Probes) -> None:
    """Answer hosts and run jobs until the file descriptor ``ending`` becomes readable."""
    blobs = BlobStore(home)
    queue = JobQueue(home, blobs, probes)
    queue.load()
    threading.Thread(target=queue.run_forever, name="runner", daemon=True).start()
    methods = Methods(home, blobs, queue)
    while ending not in select.select([listener.fileno(), ending], [], [])[0]:
        connected = _accept(listener)
        if connected:
            connection = Connection(connected, methods, lambda: read_hello(home, probes))
            threading.Thread(target=connection.serve, name="connection", daemon=True).start()


def _accept(listener: socket.socket) -> socket.socket | None:
    try:
        return listener.accept()[0]
    except OSError as error:
        # Too many open files, most likely: they become free when hosts leave.
        log.note(f"no connection accepted: {error}")
        time.sleep(0.1)
        return None
