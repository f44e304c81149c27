"""Cases of conversion, all of a module's done in one process of their own."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[3]
CHILD = ROOT / "tests" / "converting_child.py"
Case = tuple[str, dict[str, Any], dict[str, Any]]


@pytest.fixture(scope="session")
def laid_out(tiny_models, tmp_path_factory) -> Path:
    """The tiny models with their samples as ``.npy`` files."""
    folder = tmp_path_factory.mktemp("laid_out")
    for path in tiny_models.iterdir():
        (folder / path.name).symlink_to(path)
    for name, array in np.load(tiny_models / "data.npz").items():
        np.save(folder / f"{name}.npy", array)
    np.save(folder / "tokens.npy", np.load(tiny_models / "tokens.npz")["x_test"].astype(np.int32))
    return folder


@pytest.fixture(scope="session")
def converted(laid_out) -> Callable[[dict[str, Case]], dict[str, dict[str, Any]]]:
    """Does cases by name in one new process, and returns the answers by the same names."""

    def convert(cases: dict[str, Case]) -> dict[str, dict[str, Any]]:
        asked = laid_out / "cases.json"
        asked.write_text(json.dumps(list(cases.values())))
        ended = subprocess.run(
            [sys.executable, str(CHILD), str(laid_out), str(asked)],
            capture_output=True,
            text=True,
            # Beside the script lies a folder "pipeline" of tests, which must not be taken for the package.
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", "PYTHONPATH": str(ROOT)},
        )
        assert ended.returncode == 0, ended.stderr[-2000:]
        lines = [line.removeprefix("answer ") for line in ended.stdout.splitlines() if line.startswith("answer ")]
        return dict(zip(cases, map(json.loads, lines), strict=True))

    return convert
