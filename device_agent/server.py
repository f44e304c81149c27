"""The daemon: a unix socket, and a thread for each connection."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from device_agent import __version__, log
from device_agent.blobs import BlobStore
from device_agent.errors import ConnectionLost, Refusal
from device_agent.files import free_bytes
from device_agent.jobs import JobQueue
from device_agent.layout import running_release
from device_agent.lease import Leases
from device_agent.methods import Message, Methods
from device_agent.probe import Probes
from device_agent.protocol import (
    INTERNAL_ERROR,
    INVALID_REQUEST,
    MAX_MESSAGE_BYTES,
    PARSE_ERROR,
    PROTOCOL_VERSION,
    Hello,
    ProtocolError,
    decode,
    encode,
    to_json,
)
from device_agent.sensors import read_device
from device_agent.settings import Settings

# Else the error that carries it back might be too long to be sent.
_LONGEST_ID = 1000


class Connection:
    """One host: reads a request, answers it, reads the next."""

    def __init__(self, connected: socket.socket, methods: Methods, hello: Callable[[], Hello]) -> None:
        self._socket = connected
        self._methods = methods
        self._hello = hello
        self._undo: Callable[[], None] | None = None

    @property
    def descriptor(self) -> int:
        """The connection's file descriptor."""
        return self._socket.fileno()

    def notify(self, method: str, params: Message) -> None:
        """Tell the host something that it has not asked for.

        Raises:
            ConnectionLost: if it is gone.
        """
        self._send(encode({"jsonrpc": "2.0", "method": method, "params": params}))

    def if_unheard(self, undo: Callable[[], None]) -> None:
        """Have ``undo`` called if the host is gone when it is sent the answer to the request under way."""
        self._undo = undo

    def serve(self) -> None:
        """Speak with the host until it is gone; this is the connection's thread."""
        try:
            self.notify("hello", to_json(self._hello()))
            with self._socket.makefile("rb") as stream:
                for line in _lines(stream):
                    self._reply(self._answer(line))
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
            result = self._methods.call(request["method"], request.get("params", {}), self)
            return encode({"jsonrpc": "2.0", "id": request_id, "result": result})
        except Refusal as refusal:
            return _error(request_id, refusal.code, str(refusal))
        except ConnectionLost:
            raise
        except Exception as error:  # noqa: BLE001 - a bug, and the daemon lives on
            log.bug("request ended by a bug")
            return _error(request_id, INTERNAL_ERROR, f"{type(error).__name__}; the agent's log has the traceback")

    def _reply(self, answer: bytes) -> None:
        undo, self._undo = self._undo, None
        try:
            self._send(answer)
        except ConnectionLost:
            if undo:
                undo()
            raise

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


def read_hello(home: Path, probes: Probes, root: Path) -> Hello:
    """Return the agent's first words; the first time this starts each runtime once."""
    return Hello(
        protocol=PROTOCOL_VERSION,
        agent_version=__version__,
        home=str(home),
        free_bytes=free_bytes(home),
        device=read_device(root),
        runtimes=probes.all(),
        release=running_release(),
    )


def serve(home: Path, listener: socket.socket, ending: int, settings: Settings) -> None:
    """Answer hosts and run jobs until the file descriptor ``ending`` becomes readable."""
    probes, leases, blobs = Probes(settings.pythons), Leases(), BlobStore(home, settings.quota_mib << 20)
    queue = JobQueue(home, blobs, probes, leases, settings.root)
    queue.load()
    threading.Thread(target=queue.run_forever, name="runner", daemon=True).start()
    methods = Methods(home, blobs, queue, leases, settings.root)
    while ending not in select.select([listener.fileno(), ending], [], [])[0]:
        connected = _accept(listener)
        if connected:
            connection = Connection(connected, methods, lambda: read_hello(home, probes, settings.root))
            threading.Thread(target=connection.serve, name="connection", daemon=True).start()


def _accept(listener: socket.socket) -> socket.socket | None:
    try:
        return listener.accept()[0]
    except OSError as error:
        # Too many open files, most likely: they become free when hosts leave.
        log.note(f"no connection accepted: {error}")
        time.sleep(0.1)
        return None
