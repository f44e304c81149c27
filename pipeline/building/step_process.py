"""Runs one TensorFlow step in a process of its own, with a timeout, and turns its end into a value or an error."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import errors
from pipeline.building.running_steps import RunningSteps, StepChild
from pipeline.cache import write_text

Report = Callable[[float, str], None]
"""Called with the share of the step that is done, from 0 to 1, and a few words."""

_LOG_LINES = 8
_SERVER_START_S = 300.0
"""How long importing TensorFlow may take."""


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
            child = running.start(folder / "request.json", stderr)
            try:
                outcome = self._follow(child, report)
            finally:
                running.end(child)
        returncode = child.returncode if child.returncode is not None else running.server_returncode()
        self._judge(returncode, outcome, log)

    def _follow(self, child: StepChild, report: Report) -> dict[str, Any]:
        """Pass progress on until the child has ended; return its last word. The clock runs from its first."""
        outcome: dict[str, Any] = {}
        for _ in child.lines(time.monotonic() + _SERVER_START_S):
            break
        deadline = time.monotonic() + self.timeout_s
        for message in child.lines(deadline):
            if "fraction" in message:
                report(message["fraction"], message["text"])
            elif "returncode" not in message:
                outcome = message
        if time.monotonic() >= deadline and not outcome:
            raise errors.StepError(
                f"{self.label}: not finished after {self.timeout_s:g} s; raise limits.step_timeout_s"
            )
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


def _death(returncode: int | None) -> str:
    if returncode is not None and returncode < 0:
        name = signal.Signals(-returncode).name
        hint = " (out of memory?)" if name == "SIGKILL" else ""
        return f"its process was ended by {name}{hint}"
    return f"its process ended with exit code {returncode}"


def _tail(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(lines[-_LOG_LINES:]) or "(empty)"
