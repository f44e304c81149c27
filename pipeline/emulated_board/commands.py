"""Runs the programs that an image is made with, their output in a log."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from pipeline.emulated_board.tools import SEARCH_PATH
from pipeline.errors import EmulatorError


def run(command: Sequence[str], log: Path, stdin: bytes | None = None, cwd: Path | None = None) -> None:
    """Run ``command``; what it prints is added to ``log``.

    Raises:
        EmulatorError: if it fails, with its last line and where the others are.
    """
    environment = {**os.environ, "PATH": SEARCH_PATH, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    with log.open("ab") as output:
        done = subprocess.run(command, input=stdin or b"", stdout=output, stderr=output, cwd=cwd, env=environment)
    if done.returncode:
        raise EmulatorError(f"{Path(command[0]).name} failed: {last_line(log)} (all of it: {log})")


def last_line(log: Path) -> str:
    """Return the last line of ``log`` that says something."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
    return next((line for line in reversed(lines) if line), "nothing was printed")
