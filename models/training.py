"""What training a reference task needs besides its network: batches, a learning rate, and two files at the end."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

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


def library_versions() -> dict[str, str]:
    """Of what decides the bits of a trained model."""
    import keras
    import numpy as np
    import tensorflow as tf

    return {
        "keras": keras.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
    }


def weights_sha256(model: Any) -> str:
    """Of all weights in order: equal for equal weights, while a ``.keras`` file also holds the time it was saved."""
    digest = hashlib.sha256()
    for weight in model.get_weights():
        digest.update(weight.tobytes())
    return digest.hexdigest()


def write_checkpoint(model: Any, checkpoint: Path, provenance: dict[str, Any]) -> dict[str, Any]:
    """Writes the model and, beside it, its provenance as JSON; each under a temporary name first.

    Args:
        model: not compiled, so that no optimizer state is stored.
        checkpoint: its name ends in ``.keras``; the provenance's ends in ``.json``.

    Returns:
        ``provenance`` with the checkpoint's size and hashes.
    """
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    part = checkpoint.with_name(f".{checkpoint.stem}.part.keras")
    model.save(part)
    content = part.read_bytes()
    complete = provenance | {
        "checkpoint": checkpoint.name,
        "checkpoint_bytes": len(content),
        "checkpoint_sha256": hashlib.sha256(content).hexdigest(),
        "weights_sha256": weights_sha256(model),
    }
    notes = checkpoint.with_name(f".{checkpoint.stem}.json.part")
    notes.write_text(json.dumps(complete, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    part.replace(checkpoint)
    notes.replace(checkpoint.with_suffix(".json"))
    return complete
