"""The environments of the real runtimes, beside the host's, and what ``runtime_child.py`` says in them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ENVIRONMENTS = Path(sys.prefix).parent
PYTHONS = {name: str(ENVIRONMENTS / name / "bin" / "python") for name in ("litert", "tflite_runtime")}

_CHILD = Path(__file__).with_name("runtime_child.py")


def ask_child(runtime: str, *arguments: object, environment: dict[str, str] | None = None) -> dict[str, Any]:
    """Return what the child answers in the Python of ``runtime``, with ``environment`` on top of ours."""
    command = [PYTHONS[runtime], str(_CHILD), *map(str, arguments)]
    ended = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **(environment or {})})
    assert ended.returncode == 0, ended.stderr
    answer: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return answer


def open_in(runtime: str, model: Path, delegate: str, batch: int = 1, **settings: Any) -> dict[str, Any]:
    """Return what comes of one invoke of ``model``."""
    return ask_child(runtime, "open", runtime, model, delegate, batch, **settings)
