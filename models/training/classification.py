"""Trains an image classifier from nothing, in Keras 3."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.datasets.dataset import Dataset
from models.training.batches import shuffled_batches, split
from models.training.checkpoints import library_versions, write_checkpoint

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BATCH = 128
HELD_OUT = 5_000
PEAK_LEARNING_RATE = 0.1
WEIGHT_DECAY = 5e-4
LABEL_SMOOTHING = 0.05


@dataclass(frozen=True)
class Classifier:
    """A network to be trained: its task's name, what builds it untrained, and how long it is trained by default."""

    task: str
    build: Callable[[], Any]
    epochs: int


def train(
    classifier: Classifier,
    dataset: Dataset,
    seed: int,
    epochs: int,
    checkpoint: Path,
    on_epoch: Callable[[int, int, dict[str, float]], None],
) -> dict[str, Any]:
    """Trains from nothing and writes the checkpoint and, beside it, its provenance as ``.json``.

    Run it in a process of its own: it sets the seeds and the determinism of the whole process. On the same machine,
    with the same seed and libraries, the weights are the same to the bit (``weights_sha256``; the checkpoint's own hash
    is not, for it holds the time). Elsewhere sums are rounded in another order, and the accuracy differs a little.

    Args:
        dataset: 5,000 training images (at most a tenth) are held out for validation; the test images are looked at
            once, at the end.
        on_epoch: called with the epoch from 1, ``epochs``, and ``loss``, ``top1``, ``validation_top1``.

    Returns:
        The provenance.
    """
    import keras
    import numpy as np
    import tensorflow as tf

    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()
    rng = np.random.default_rng(seed)
    chosen, held_out = split(len(dataset.x_train), min(HELD_OUT, len(dataset.x_train) // 10), rng)
    batch = min(BATCH, len(chosen))
    model = classifier.build()
    _compile(model, steps_per_epoch=len(chosen) // batch, epochs=epochs)
    validation_top1 = 0.0
    for epoch in range(1, epochs + 1):
        figures = _train_epoch(model, dataset, chosen, batch, rng)
        validation_top1 = top1(model, dataset, dataset.x_train[held_out], dataset.y_train[held_out])
        on_epoch(epoch, epochs, figures | {"validation_top1": validation_top1})
    provenance = _provenance(classifier, model, dataset, seed, epochs) | {"validation_top1": validation_top1}
    return write_checkpoint(_without_optimizer(classifier, model), checkpoint, provenance)


def _provenance(classifier: Classifier, model: Any, dataset: Dataset, seed: int, epochs: int) -> dict[str, Any]:
    return {
        "command": f"edgepress train {classifier.task} --seed {seed}"
        + ("" if epochs == classifier.epochs else f" --epochs {epochs}"),
        "data_sha256": _data_sha256(dataset),
        "epochs": epochs,
        "libraries": library_versions(),
        "parameters": model.count_params(),
        "seed": seed,
        "test_top1": top1(model, dataset, dataset.x_test, dataset.y_test),
    }


def _compile(model: Any, steps_per_epoch: int, epochs: int) -> None:
    import keras

    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        decay_steps=steps_per_epoch * (epochs - 1) or 1,
        warmup_target=PEAK_LEARNING_RATE,
        warmup_steps=steps_per_epoch,
    )
    model.compile(
        keras.optimizers.SGD(schedule, momentum=0.9, nesterov=True, weight_decay=WEIGHT_DECAY),
        keras.losses.CategoricalCrossentropy(label_smoothing=LABEL_SMOOTHING),
        metrics=[keras.metrics.CategoricalAccuracy(name="top1")],
        jit_compile=False,  # XLA on a CPU took twice as long to start and was no faster
    )


def _train_epoch(
    model: Any, dataset: Dataset, chosen: NDArray[np.int64], batch: int, rng: np.random.Generator
) -> dict[str, float]:
    """One pass; the means over its batches, each as it was before the weights followed it."""
    import numpy as np

    one_hot = np.eye(model.output_shape[-1], dtype=np.float32)
    figures = [
        model.train_on_batch(dataset.model_input(x), one_hot[y], return_dict=True)
        for x, y in shuffled_batches(dataset.x_train[chosen], dataset.y_train[chosen], batch, rng)
    ]
    return {name: float(np.mean([figure[name] for figure in figures])) for name in ("loss", "top1")}


def top1(model: Any, dataset: Dataset, x: NDArray[np.uint8], y: NDArray[np.int64]) -> float:
    """The share of images whose most probable class is the right one, 0..1."""
    probabilities = model.predict(dataset.model_input(x), batch_size=500, verbose=0)
    return float((probabilities.argmax(axis=1) == y).mean())


def _without_optimizer(classifier: Classifier, model: Any) -> Any:
    bare = classifier.build()
    bare.set_weights(model.get_weights())
    return bare


def _data_sha256(dataset: Dataset) -> dict[str, str]:
    arrays = {name: getattr(dataset, name) for name in ("x_train", "y_train", "x_test", "y_test")}
    return {name: hashlib.sha256(array.tobytes()).hexdigest() for name, array in arrays.items()}
