"""Asking the firmware of a Raspberry Pi. Each question starts a process and takes milliseconds."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

_PATIENCE_S = 1.0


def ask_vcgencmd(root: Path, question: str, patience_s: float = _PATIENCE_S) -> str | None:
    """Return what ``<root>/usr/bin/vcgencmd <question>`` prints; None when there is no such program, it fails (one
    needs to be in the group "video"), or it says nothing for ``patience_s`` seconds."""
    program = root / "usr/bin/vcgencmd"
    if not os.access(program, os.X_OK):
        return None
    try:
        answer = subprocess.run(
            [str(program), question],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=patience_s,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.decode(errors="replace") if answer.returncode == 0 else None
