"""Runs cases of ``tfmot_child.py`` in a process of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

CHILD = Path(__file__).with_name("tfmot_child.py")
ROOT = Path(__file__).parents[3]


def outcomes(folder: Path, cases: dict[str, Any]) -> dict[str, Any]:
    """Return what came out of each case."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    done = subprocess.run(
        [sys.executable, str(CHILD), str(folder), json.dumps(cases)],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])
