"""How well a flatbuffer does what the float model did, on samples that it was not calibrated with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline import export


@dataclass(frozen=True)
class Quality:
    """``snr_db`` is None without any difference, ``accuracy_drop_pp`` without labels; below 0 it is a gain."""

    snr_db: float | None
    accuracy_drop_pp: float | None

    @property
    def rank(self) -> float:
        """The greater, the nearer to the float model."""
        return float("inf") if self.snr_db is None else self.snr_db

    def __str__(self) -> str:
        ratio = "no difference" if self.snr_db is None else f"{self.snr_db:.1f} dB"
        drop = self.accuracy_drop_pp
        return ratio if drop is None else f"{ratio}, accuracy {0.0 - drop:+.2f} pp"


@dataclass(frozen=True)
class Yardstick:
    """Inputs [samples, …], the float model's outputs for them, and labels [samples] where there are any."""

    inputs: npt.NDArray[Any]
    expected: npt.NDArray[np.float64]
    labels: npt.NDArray[Any] | None

    def first(self, count: int) -> Yardstick:
        """Return the same for the first ``count`` samples."""
        labels = None if self.labels is None else self.labels[:count]
        return Yardstick(self.inputs[:count], self.expected[:count], labels)

    def measure(self, content: bytes) -> Quality:
        """Return the quality of a flatbuffer."""
        found = export.flatbuffer_outputs(content, self.inputs)
        drop = None if self.labels is None else 100 * (self._top1(self.expected) - self._top1(found))
        return Quality(export.snr_db(self.expected, found), drop)

    def _top1(self, outputs: npt.NDArray[np.float64]) -> float:
        return float((outputs.argmax(axis=-1) == self.labels).mean())
