"""Batches to train on: shuffled, augmented, and a part held out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SHIFT_PIXELS = 2


def shift_and_flip(x: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Each image moved by up to two pixels in both directions and mirrored left to right half of the time.

    Args:
        x: uint8, [n, height, width, channels]; borders that come into view are 0.
    """
    import numpy as np

    height, width = x.shape[1:3]
    pad = (SHIFT_PIXELS, SHIFT_PIXELS)
    padded = np.pad(x, ((0, 0), pad, pad, (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(1, 2))
    top, left = rng.integers(0, 2 * SHIFT_PIXELS + 1, size=(2, len(x)))
    moved = np.moveaxis(windows[np.arange(len(x)), top, left], 1, -1)
    mirror = rng.random(len(x)) < 0.5
    moved[mirror] = moved[mirror, :, ::-1]
    return np.ascontiguousarray(moved)


def split(samples: int, held_out: int, rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices to train on and indices to validate on, drawn once."""
    order = rng.permutation(samples)
    return order[held_out:], order[:held_out]


def shuffled_batches(
    x: NDArray[np.uint8], y: NDArray[np.int64], size: int, rng: np.random.Generator
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
    """One pass over the samples in a new order; what does not fill a batch is left for another pass."""
    order = rng.permutation(len(x))
    for start in range(0, len(x) - size + 1, size):
        chosen = order[start : start + size]
        yield shift_and_flip(x[chosen], rng), y[chosen]
