"""Batches: what augmentation may and may not do to an image."""

from __future__ import annotations

import numpy as np

from models.datasets.dataset import Dataset
from models.training.batches import SHIFT_PIXELS, shift_and_flip, shuffled_batches, split


def images(count: int) -> np.ndarray:
    """Images with different columns and rows, and a black border as wide as the largest shift."""
    inner = np.arange(1, 37, dtype=np.uint8).reshape(1, 6, 6, 1)
    border = (SHIFT_PIXELS, SHIFT_PIXELS)
    return np.repeat(np.pad(inner, ((0, 0), border, border, (0, 0))), count, axis=0)


def test_shift_and_flip_moves_and_mirrors_but_keeps_every_pixel_of_the_middle() -> None:
    original = images(400)
    changed = shift_and_flip(original, np.random.default_rng(0))
    assert changed.shape == original.shape
    assert changed.dtype == np.uint8
    assert (np.sort(changed.reshape(400, -1)) == np.sort(original.reshape(400, -1))).all()
    variants = {image.tobytes() for image in changed}
    assert len(variants) == (2 * SHIFT_PIXELS + 1) ** 2 * 2


def test_split_shares_no_sample() -> None:
    chosen, held_out = split(50, 10, np.random.default_rng(0))
    assert (len(chosen), len(held_out)) == (40, 10)
    assert {*chosen.tolist()} | {*held_out.tolist()} == {*range(50)}


def test_batches_keep_images_and_labels_together_and_drop_the_rest() -> None:
    x = np.arange(10, dtype=np.uint8).reshape(10, 1, 1, 1).repeat(9, axis=1).repeat(9, axis=2)
    batches = list(shuffled_batches(x, np.arange(10), 4, np.random.default_rng(0)))
    assert [len(labels) for _, labels in batches] == [4, 4]
    assert all((batch[:, 4, 4, 0] == labels).all() for batch, labels in batches)


def test_model_input_is_scaled_float32() -> None:
    x = images(1)
    dataset = Dataset(x, np.zeros(1, np.int64), x, np.zeros(1, np.int64), 2.0, -1.0, "made up")
    given = dataset.model_input(x)
    assert given.dtype == np.float32
    assert (given == x * 2.0 - 1.0).all()
