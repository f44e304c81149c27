"""Child processes, one at a time: started in a session of their own, waited for without polling, stopped as a group."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from device_agent.doorbell import Doorbell

_TAIL_BYTES = 2000
_TAIL_LINES = 20


class Stopped(Exception):
    """The child was stopped, or not even started, because ``Children.stop`` was called."""


@dataclass(frozen=True)
class Exit:
    """How a child ended; ``returncode`` as in subprocess, ``tail`` the last lines of what it printed."""

    returncode: int
    timed_out: bool
    tail: str


class Children:
    """Runs commands one after another until it is stopped."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False
        self._pausing: Doorbell | None = None

    def run(self, command: Sequence[str], wall_s: float) -> Exit:
        """Run ``command`` and wait until it ends, at most ``wall_s``.

        Raises:
            Stopped: if ``stop`` was called before or meanwhile.
            OSError: if the command cannot be started.
        """
        with self._lock:
            if self._stopped:
                raise Stopped
            process = self._process = _start(command)
        try:
            tail, timed_out = _read_to_end(process, time.monotonic() + wall_s)
        finally:
            self._end(process)
        if self._stopped:
            raise Stopped
        return Exit(process.returncode, timed_out, tail)

    def pause(self, duration_s: float) -> None:
        """Sleep for ``duration_s`` seconds of the monotonic clock.

        Raises:
            Stopped: as soon as ``stop`` is called, also if it was before.
        """
        deadline = time.monotonic() + duration_s
        with Doorbell() as bell:
            try:
                while not self._must_stop(bell) and (left_s := deadline - time.monotonic()) > 0:
                    bell.sleep(left_s)
            finally:
                stopped = self._must_stop(None)
        if stopped:
            raise Stopped

    def stop(self) -> None:
        """Kill the child that runs, with all that it has started, end a pause, and refuse further ones."""
        with self._lock:
            self._stopped = True
            if self._process:
                _kill_group(self._process)
            if self._pausing:
                self._pausing.ring()

    def _must_stop(self, pausing: Doorbell | None) -> bool:
        """Say whether ``stop`` was called; from now on it rings at ``pausing``."""
        with self._lock:
            self._pausing = pausing
            return self._stopped

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        # Under the lock, so that stop() never kills a process id that was given to another process meanwhile. The
        # group is killed because a child may close its output and live on; one that is ending keeps its exit status.
        with self._lock:
            _kill_group(process)
            process.wait()
            self._process = None
        if process.stdout:
            process.stdout.close()


def _start(command: Sequence[str]) -> subprocess.Popen[bytes]:
    # One thread for numpy's linear algebra: its idle threads would cost memory and stand beside the timed one.
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command,
        cwd="/",
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def _read_to_end(process: subprocess.Popen[bytes], deadline: float) -> tuple[str, bool]:
    """Sleep until the child's output ends, as it does with the child: ``Popen.wait(timeout)`` would poll."""
    assert process.stdout is not None
    descriptor, tail = process.stdout.fileno(), b""
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    while True:
        remaining_s = deadline - time.monotonic()
        if remaining_s <= 0 or not poller.poll(remaining_s * 1000):
            return _last_lines(tail), True
        chunk = os.read(descriptor, 1 << 16)
        if not chunk:
            return _last_lines(tail), False
        tail = (tail + chunk)[-_TAIL_BYTES:]


def _last_lines(tail: bytes) -> str:
    # Plain characters: an escape for a terminal is none to pass on, and JSON would need six for each.
    text = tail.decode("ascii", errors="replace")
    plain = "".join(letter if letter.isascii() and (letter.isprintable() or letter == "\n") else "?" for letter in text)
    return "\n".join(plain.splitlines()[-_TAIL_LINES:])


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
