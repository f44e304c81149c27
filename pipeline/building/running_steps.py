"""The step processes of a run: forked by one server, killed one by one or all at once."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from io import BufferedWriter
from pathlib import Path
from typing import IO, Any


class Stopped(Exception):
    """The run has been stopped: its steps ended before their time, which says nothing of them."""


class StepChild:
    """One step's process, known by the channel that it writes to; its id comes as the first line."""

    def __init__(self, channel: IO[bytes]) -> None:
        self.channel = channel
        self.pid: int | None = None
        self.returncode: int | None = None
        self._received = b""

    def lines(self, deadline: float) -> Iterator[dict[str, Any]]:
        """Yield what the step tells, until it has ended or the deadline is over; no thread waits for it."""
        while self.returncode is None and (line := self._line(deadline)):
            message = json.loads(line)
            self.pid = message.get("pid", self.pid)
            self.returncode = message.get("returncode")
            yield message

    def _line(self, deadline: float) -> bytes:
        """Return one line; nothing at the end of the channel, or at the deadline."""
        while b"\n" not in self._received:
            if not select.select([self.channel], [], [], max(0.0, deadline - time.monotonic()))[0]:
                return b""
            chunk = os.read(self.channel.fileno(), 65536)
            if not chunk:
                return b""
            self._received += chunk
        line, _, self._received = self._received.partition(b"\n")
        return line

    def kill(self) -> None:
        """End it, with all that it may have started, when it is still running."""
        if self.pid is not None and self.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)


class RunningSteps:
    """The step processes that are under way and the server that forks them, so that an interrupted run can end all."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._children: set[StepChild] = set()
        self._server: tuple[subprocess.Popen[bytes], socket.socket] | None = None
        self._stopped = False

    def __enter__(self) -> RunningSteps:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def start(self, request: Path, log: BufferedWriter) -> StepChild:
        """Start the process of a step. Raises Stopped when the run has been stopped."""
        with self._lock:
            if self._stopped:
                raise Stopped
            control = self._control(log)
            receiving, sending = os.pipe()
            child = StepChild(os.fdopen(receiving, "rb", buffering=0))
            self._children.add(child)
            try:
                socket.send_fds(control, [os.fsencode(request)], [sending, log.fileno()])
            except OSError:
                pass  # the server has just died, which the end of the channel tells
            finally:
                os.close(sending)
            return child

    def end(self, child: StepChild) -> None:
        """End a child that is still running, and forget it. Raises Stopped when the run has been stopped."""
        child.kill()
        child.channel.close()
        with self._lock:
            self._children.discard(child)
            if self._stopped:
                raise Stopped

    def server_returncode(self) -> int | None:
        """How the server has ended, when it has; its children have then ended with it."""
        with self._lock:
            if self._server is None:
                return None
            with suppress(subprocess.TimeoutExpired):
                self._server[0].wait(1)
            return self._server[0].returncode

    def stop(self) -> None:
        """Kill every child and the server; none can be started afterwards."""
        with self._lock:
            self._stopped = True
            for child in self._children:
                child.kill()
            if self._server is not None:
                server, control = self._server
                server.kill()
                server.wait()
                control.close()
                self._server = None

    def _control(self, log: BufferedWriter) -> socket.socket:
        """Return the socket to a server that lives; one that is started tells its troubles in ``log``."""
        if self._server is not None:
            server, control = self._server
            if server.poll() is None:
                return control
            control.close()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            server = subprocess.Popen(
                [sys.executable, "-P", "-m", "pipeline.building.step_server", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C is the parent's to handle
                # A user's own choice of Keras backend or data format must not change what is built under one key.
                env={**os.environ, "KERAS_BACKEND": "tensorflow", "KERAS_HOME": os.devnull},
            )
        self._server = (server, ours)
        return ours
