"""A layer's kernel as a product of two smaller ones, by singular value decomposition: numpy alone.

Sources: E. Denton et al., "Exploiting Linear Structure Within Convolutional Networks for Efficient Evaluation", 2014,
and X. Zhang et al., "Accelerating Very Deep Convolutional Networks for Classification and Detection", 2015, for the
decomposition over channels; M. Jaderberg et al., "Speeding up Convolutional Neural Networks with Low Rank Expansions",
2014, for the one over space (its second scheme, solved in closed form by the truncated decomposition).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Scheme = Literal["channel", "spatial"]
Array = npt.NDArray[Any]

_ROUNDING = 1e-12


@dataclass(frozen=True)
class Factors:
    """The singular value decomposition of a kernel, seen as a matrix.

    A Dense kernel [in, out] is one already. With ``channel`` a Conv2D kernel [h, w, in, out] is the matrix
    [h w in, out]; with ``spatial``, [h in, w out].

    Args:
        shape: the kernel's.
        left: [rows, n].
        values: [n], falling.
        right: [n, columns].
    """

    shape: tuple[int, ...]
    scheme: Scheme
    left: Array
    values: Array
    right: Array

    @property
    def full(self) -> int:
        """How many weights the kernel has."""
        return len(self.left) * int(self.right.shape[1])

    def parameters(self, rank: int) -> int:
        """Return how many weights the two kernels of ``rank`` have."""
        return rank * (len(self.left) + int(self.right.shape[1]))

    def energy(self, rank: int) -> float:
        """Return the share of the squared singular values that ``rank`` keeps: of the squared weights, too."""
        squares = np.square(self.values)
        return float(squares[:rank].sum() / max(squares.sum(), np.finfo(float).tiny))

    def rank_for(self, energy: float) -> int:
        """Return the least rank that keeps this share of the squared singular values; 1 for a kernel of zeros."""
        squares = np.square(self.values)
        enough = (energy - _ROUNDING) * squares.sum()
        return min(int(np.searchsorted(np.cumsum(squares), enough)) + 1, len(self.values))

    def kernels(self, rank: int) -> tuple[Array, Array]:
        """Return the first and the second kernel, float32; the singular values go half to each.

        Dense: [in, rank] and [rank, out]. ``channel``: [h, w, in, rank] and [1, 1, rank, out]. ``spatial``:
        [h, 1, in, rank] and [1, w, rank, out].
        """
        root = np.sqrt(self.values[:rank])
        first = (self.left[:, :rank] * root).astype(np.float32)
        second = (root[:, np.newaxis] * self.right[:rank]).astype(np.float32)
        if len(self.shape) == 2:
            return first, second
        height, width, inputs, outputs = self.shape
        if self.scheme == "channel":
            return first.reshape(height, width, inputs, -1), second[np.newaxis, np.newaxis]
        spread = second.reshape(-1, width, outputs).transpose(1, 0, 2)
        return first.reshape(height, 1, inputs, -1), spread[np.newaxis]


def factors(kernel: Array, scheme: Scheme) -> Factors:
    """Return the decomposition of a kernel [in, out] or [h, w, in, out]."""
    matrix = kernel.reshape(-1, kernel.shape[-1])
    if kernel.ndim == 4 and scheme == "spatial":
        height, width, inputs, outputs = kernel.shape
        matrix = kernel.transpose(0, 2, 1, 3).reshape(height * inputs, width * outputs)
    left, values, right = np.linalg.svd(matrix.astype(np.float64), full_matrices=False)
    return Factors(kernel.shape, scheme, left, values, right)


def kept(found: Sequence[Factors], energy: float) -> int:
    """Return how many weights all layers have when each keeps ``energy``; one that would not shrink stays whole."""
    return sum(min(each.full, each.parameters(each.rank_for(energy))) for each in found)


def common_energy(found: Sequence[Factors], size: float) -> float:
    """Return the largest energy at which all layers together keep at most ``size`` of their weights; 0 is rank 1."""
    allowed = size * sum(each.full for each in found)
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if kept(found, middle) <= allowed else (low, middle)
    return low
