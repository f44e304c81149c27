"""``edgepress train``: a reference task's data, its training, its checkpoint."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

from pipeline.cache import user_cache
from pipeline.config.checks import known_tasks
from pipeline.errors import DataError, UsageError


def train_task(
    task: str, seed: int, epochs: int | None, data: Path | None, output: Path | None, say: Callable[[str], None]
) -> None:
    """Train a reference task; ``say`` is given a line of text for each epoch and for the result.

    Raises:
        UsageError: for an unknown task.
        DataError: if its data cannot be had.
    """
    from models.datasets.dataset import DataUnavailable

    if task not in known_tasks():
        raise UsageError(f'unknown task "{task}"; known: {", ".join(known_tasks())}')
    module = importlib.import_module(f"models.{task}")
    try:
        dataset = module.load_data(data, user_cache().folder, lambda what, done, total: None)
    except DataUnavailable as error:
        raise DataError(f"the data of task {task}: {error}") from error
    say(f"data: {dataset.source}")
    checkpoint = module.CHECKPOINT if output is None else output
    provenance = module.train(
        dataset, seed, epochs or module.EPOCHS, checkpoint, lambda *epoch: say(_epoch_line(*epoch))
    )
    say(f"test {module.METRIC}: {provenance['test_top1']:.4f}; wrote {checkpoint}")


def _epoch_line(epoch: int, epochs: int, logs: dict[str, float]) -> str:
    return f"epoch {epoch}/{epochs}: " + ", ".join(f"{name} {value:.4f}" for name, value in logs.items())
