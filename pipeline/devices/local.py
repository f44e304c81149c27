"""The transport to this machine: the agent as a local process, by the same protocol; files are copied."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

import platformdirs

from pipeline.devices.agent_stream import KEPT_STDERR_BYTES, LineBuffer, stream_ended
from pipeline.devices.inventory import DEFAULT_AGENT, Device
from pipeline.devices.transport import Progress
from pipeline.devices.whole_file import whole_file, write_all
from pipeline.errors import DeviceError, DeviceFull, DeviceUnreachable

CHUNK_BYTES = 1 << 20
WRITE_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 5.0


def local_transport(device: Device, start: bool = True) -> LocalTransport:
    """Return the transport for ``device``: its own agent and home, or the ones that edgepress installs."""
    home = device.home or str(platformdirs.user_data_path("edgepress") / "agent")
    agent = (str(Path(device.agent).expanduser()),) if device.agent != DEFAULT_AGENT else default_agent()
    return LocalTransport(device.name, (*agent, "attach", "--home", home, *(() if start else ("--no-start",))))


def default_agent() -> tuple[str, ...]:
    """Return the command of this machine's agent: in the runtime's environment beside ours, or else in ours."""
    beside = Path(sys.prefix).parent / "litert" / "bin" / "python"
    python = beside if beside.exists() else Path(sys.executable)
    return (str(python), "-m", "device_agent")


class LocalTransport:
    """An agent process on this machine; there is no connection to keep."""

    def __init__(self, name: str, command: tuple[str, ...]) -> None:
        self._name = name
        self._command = command

    def open_stream(self) -> LocalStream:
        """Start the agent's ``attach``; see ``Transport``."""
        ours, theirs = socket.socketpair()
        errors = tempfile.TemporaryFile()  # noqa: SIM115  the stream closes it
        try:
            with theirs:
                # A session of its own: Ctrl-C is for the host, which then ends the stream in order.
                child = subprocess.Popen(
                    self._command,
                    stdin=theirs.fileno(),
                    stdout=theirs.fileno(),
                    stderr=errors,
                    start_new_session=True,
                    # The folder that the user stands in may have a keras.py or a device_agent of its own.
                    env={**os.environ, "PYTHONSAFEPATH": "1"},
                )
        except OSError as error:
            ours.close()
            errors.close()
            raise DeviceUnreachable(f"no agent on {self._name}: {self._command[0]}: {error.strerror}") from error
        return LocalStream(self._name, child, ours, errors)

    def put_file(self, local: Path, remote: str, offset: int, progress: Progress) -> None:
        """Copy a file to the agent's home; see ``Transport``."""
        try:
            with local.open("rb") as source, Path(remote).open("r+b" if offset else "wb", buffering=0) as target:
                target.truncate(offset)
                source.seek(offset)
                target.seek(offset)
                while chunk := source.read(CHUNK_BYTES):
                    write_all(target, chunk)
                    progress(len(chunk))
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DeviceFull(
                    f"{self._name} has no room for {Path(remote).name} in {Path(remote).parent}"
                ) from error
            raise DeviceError(f"{self._name}: {remote}: {error.strerror}") from error

    def get_file(self, remote: str, local: Path, size_bytes: int, progress: Progress) -> None:
        """Copy a file from the agent's home; see ``Transport``."""
        try:
            with Path(remote).open("rb") as source:
                found = os.fstat(source.fileno()).st_size
                if found != size_bytes:
                    raise DeviceError(f"{self._name}: {remote} has {found} bytes; the agent announced {size_bytes}")
                with whole_file(local) as write:
                    received = 0
                    while chunk := source.read(CHUNK_BYTES):
                        write(chunk)
                        received += len(chunk)
                        progress(len(chunk))
                    if received != size_bytes:
                        came = f"{received} of {size_bytes} bytes came"
                        raise DeviceError(f"{self._name}: {remote} changed while it was read: {came}")
        except OSError as error:
            raise DeviceError(f"{self._name}: {remote}: {error.strerror}") from error

    def close(self) -> None:
        """Do nothing: each stream owns its process."""


class LocalStream:
    """The agent's standard input and output over a pair of sockets."""

    def __init__(self, name: str, child: subprocess.Popen[bytes], pair: socket.socket, errors: IO[bytes]) -> None:
        self._name = name
        self._child = child
        self._socket = pair
        self._errors = errors
        self._lines = LineBuffer(name)
        self._spoke = False

    def write_line(self, line: bytes) -> None:
        """Send one line; see ``AgentStream``."""
        self._socket.settimeout(WRITE_TIMEOUT_S)
        try:
            self._socket.sendall(line)
        except OSError as error:
            raise self._ended() from error

    def read_line(self, timeout_s: float | None) -> bytes:
        """Return one line; see ``AgentStream``."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while (line := self._lines.take_line()) is None:
            self._receive(deadline)
        self._spoke = True
        return line

    def close(self) -> None:
        """End the process: by the end of its input, or else by force."""
        self._socket.close()
        self._stop()
        self._errors.close()

    def interrupt(self) -> None:
        """Wake who waits for a line; see ``AgentStream``."""
        with suppress(OSError):  # it may have been closed meanwhile
            self._socket.shutdown(socket.SHUT_RDWR)

    def _receive(self, deadline: float | None) -> None:
        self._socket.settimeout(None if deadline is None else max(0.001, deadline - time.monotonic()))
        try:
            chunk = self._socket.recv(1 << 16)
        except TimeoutError:
            raise DeviceUnreachable(f"the agent on {self._name} does not answer") from None
        except OSError as error:
            raise self._ended() from error
        if not chunk:
            raise self._ended()
        self._lines.feed(chunk)

    def _ended(self) -> DeviceUnreachable:
        self._stop()
        size = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, size - KEPT_STDERR_BYTES))
        return stream_ended(self._name, self._spoke, self._child.returncode, self._errors.read())

    def _stop(self) -> None:
        try:
            self._child.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
