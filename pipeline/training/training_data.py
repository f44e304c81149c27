"""The samples that a compression step may look at: never the ones that are scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.model_formats.model_files import Format


@dataclass(frozen=True)
class Teacher:
    """The experiment's model before any step: a file and its format."""

    path: Path
    format: Format


@dataclass(frozen=True)
class TrainingData:
    """Training samples as memory-mapped files, and the seed that everything random starts from.

    ``labels`` is None when there are only samples for calibration. ``runtime`` is where the flatbuffer will
    run, ``dtype`` what the model takes. ``teacher`` is the experiment's own model, for steps that learn from it.
    """

    inputs_file: Path
    labels_file: Path | None
    scale: float
    offset: float
    seed: int
    runtime: str
    dtype: str = "float32"
    teacher: Teacher | None = None

    @property
    def count(self) -> int:
        """How many samples there are."""
        return int(np.load(self.inputs_file, mmap_mode="r").shape[0])

    @property
    def labels(self) -> npt.NDArray[Any] | None:
        """The labels [count], or None."""
        return None if self.labels_file is None else np.load(self.labels_file)

    def inputs(self, indices: Sequence[int] | slice) -> npt.NDArray[Any]:
        """Return the inputs at ``indices`` as the model takes them: [samples, …], scaled, of its dtype."""
        stored: npt.NDArray[Any] = np.load(self.inputs_file, mmap_mode="r")[indices]
        if np.dtype(self.dtype).kind in "iu":
            return stored.astype(self.dtype)
        scaled: npt.NDArray[Any] = stored.astype(np.float32) * np.float32(self.scale) + np.float32(self.offset)
        return scaled.astype(self.dtype)

    def fixed_indices(self, samples: int) -> list[int]:
        """Return ``samples`` distinct indices, or all, in ascending order; always the same for one seed."""
        chosen = np.random.default_rng(self.seed).choice(self.count, min(samples, self.count), replace=False)
        return sorted(int(index) for index in chosen)
