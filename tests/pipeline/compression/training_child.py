"""What the scripts that do a technique's TensorFlow work in a child process share: data, a teacher, a silent report."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

TESTS = Path(__file__).parents[2]


def run_child(script: Path, *arguments: str) -> dict[str, Any]:
    """Run a script of cases, and return the JSON that it writes in its last line."""
    search = os.pathsep.join([str(TESTS.parent), str(TESTS), str(script.parent)])
    environment = {**os.environ, "PYTHONPATH": search, "TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, str(script), *arguments], env=environment, capture_output=True, text=True, timeout=560
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def prepared(path: Path, cache: Path, steps: Any) -> Any:
    """Return what builds the variants of an experiment, and its model; it needs no device."""
    from pipeline.building.variants import prepare
    from pipeline.cache import Cache
    from pipeline.config import load_experiment
    from pipeline.reporting.progress import NoProgress

    return prepare(load_experiment(path), Cache(cache), steps, NoProgress())


class Notes:
    """A report that keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def __call__(self, fraction: float, text: str) -> None:
        pass

    def note(self, text: str) -> None:
        self.notes.append(text)

    def leave(self, layer: str, reason: str, chosen: bool = False) -> None:
        raise AssertionError("what is left is told by untreated")


def training_data(folder: Path, teacher: tuple[Path, str] | None = None, labels: bool = True) -> Any:
    """Return 256 tiny images as a step gets them."""
    from tiny_models import samples

    from pipeline.training.training_data import Teacher, TrainingData

    x, y = samples(256, 0)
    np.save(folder / "x.npy", x)
    np.save(folder / "y.npy", y)
    taught = None if teacher is None else Teacher(*teacher)
    labels_file = folder / "y.npy" if labels else None
    return TrainingData(folder / "x.npy", labels_file, 1.0, 0.0, 0, "litert", "float32", taught)


def digest(model: Any, data: Any) -> str:
    """Return the SHA-256 of the flatbuffer of a model."""
    from pipeline.export import Convertible

    return hashlib.sha256(Convertible(model, data).flatbuffer()).hexdigest()


def message_of(call: Any) -> str:
    """Return the message of the EdgepressError that a call raises."""
    from pipeline.errors import EdgepressError

    try:
        call()
    except EdgepressError as error:
        return str(error)
    return ""


def largest_difference(before: Any, after: Any, shape: tuple[int, ...]) -> float:
    """Return how far the outputs of two models are apart on random inputs."""
    inputs = [np.random.default_rng(7).random((3, *shape), dtype=np.float32) for _ in before.inputs]
    taken = inputs if len(inputs) > 1 else inputs[0]
    expected, found = before(taken, training=False), after(taken, training=False)
    pairs = zip(expected, found, strict=True) if isinstance(expected, list) else [(expected, found)]
    return max(float(np.abs(np.asarray(a) - np.asarray(b)).max()) for a, b in pairs)
