"""Runs one TensorFlow step in a process of its own, with a timeout, and turns its end into a value or an error."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from io import BufferedWriter
from pathlib import Path
from typing import IO, Any

from pipeline import errors
from pipeline.cache import write_text

Report = Callable[[float, str], None]
"""Called with the share of the step that is done, from 0 to 1, and a few words."""

_LOG_LINES = 8


class Stopped(Exception):
    """The run has been stopped: its steps ended before their time, which says nothing of them."""


class RunningSteps:
    """The step processes that are under way, so that an interrupted run can end them all."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._children: set[subprocess.Popen[bytes]] = set()
        self._stopped = False

    def start(self, command: list[str], stderr: BufferedWriter) -> subprocess.Popen[bytes]:
        """Start a child. Raises Stopped when the run has been stopped."""
        with self._lock:
            if self._stopped:
                raise Stopped
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                start_new_session=True,  # Ctrl-C is the parent's to handle
                # A user's own choice of Keras backend or data format must not change what is built under one key.
                env={**os.environ, "KERAS_BACKEND": "tensorflow", "KERAS_HOME": f"{stderr.name}.keras_home"},
            )
            self._children.add(child)
            return child

    def end(self, child: subprocess.Popen[bytes]) -> None:
        """End a child that is still running, and forget it. Raises Stopped when the run has been stopped."""
        _stop(child)
        with self._lock:
            self._children.discard(child)
            if self._stopped:
                raise Stopped

    def stop(self) -> None:
        """Kill every child; none can be started afterwards."""
        with self._lock:
            self._stopped = True
            for child in self._children:
                if child.poll() is None:
                    os.killpg(child.pid, signal.SIGKILL)


@dataclass(frozen=True)
class StepProcess:
    """What a step process needs: ``request`` as ``step_worker`` reads it, and a time limit in seconds."""

    label: str
    request: dict[str, Any]
    timeout_s: float

    def run(self, folder: Path, report: Report, running: RunningSteps) -> None:
        """Do the step; its files are in ``folder`` afterwards, with its log.

        Raises:
            StepError: if it failed, died or took too long; the message names the step and the reason.
            StorageError: if the disk is full.
        """
        write_text(folder / "request.json", json.dumps({**self.request, "folder": str(folder)}, indent=1))
        log = folder / "log.txt"
        with log.open("wb") as stderr:
            command = [
                sys.executable,
                "-P",
                "-m",
                "pipeline.building.step_worker",
                str(folder / "request.json"),
                str(os.getpid()),
            ]
            child = running.start(command, stderr)
            try:
                outcome = self._follow(child, report)
            finally:
                running.end(child)
        self._judge(child.returncode, outcome, log)

    def _follow(self, child: subprocess.Popen[bytes], report: Report) -> dict[str, Any]:
        """Pass progress on until the child closes its output; return its last word."""
        assert child.stdout is not None
        deadline = time.monotonic() + self.timeout_s
        outcome: dict[str, Any] = {}
        for line in _lines(child.stdout, deadline):
            message = json.loads(line)
            if "fraction" in message:
                report(message["fraction"], message["text"])
            else:
                outcome = message
        if time.monotonic() >= deadline and not outcome:
            raise errors.StepError(
                f"{self.label}: not finished after {self.timeout_s:g} s; raise limits.step_timeout_s"
            )
        child.wait()
        return outcome

    def _judge(self, returncode: int | None, outcome: dict[str, Any], log: Path) -> None:
        if outcome.get("finished"):
            return
        if "error" not in outcome:
            raise errors.StepError(f"{self.label}: {_death(returncode)}; the end of its log:\n{_tail(log)}")
        message = f"{self.label}: {outcome['message']}"
        if outcome["error"] == "DiskFull":
            raise errors.StorageError(f"{message}; make room in {log.parent.parent} and run again")
        raise getattr(errors, outcome["error"], errors.StepError)(message)


def _lines(stream: IO[bytes], deadline: float) -> Any:
    """Yield lines until the end of the stream or the deadline, without a thread."""
    pending = b""
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while (left := deadline - time.monotonic()) > 0:
            if not selector.select(left):
                return
            chunk = os.read(stream.fileno(), 65536)
            if not chunk:
                return
            *whole, pending = (pending + chunk).split(b"\n")
            yield from whole


def _stop(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    if child.stdout is not None:
        child.stdout.close()


def _death(returncode: int | None) -> str:
    if returncode is not None and returncode < 0:
        name = signal.Signals(-returncode).name
        hint = " (out of memory?)" if name == "SIGKILL" else ""
        return f"its process was ended by {name}{hint}"
    return f"its process ended with exit code {returncode}"


def _tail(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(lines[-_LOG_LINES:]) or "(empty)"
