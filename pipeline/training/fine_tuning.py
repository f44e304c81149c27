"""Training a classifier for a few epochs more, as compression steps need it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from pipeline.compression import Report, RewriteSettings
from pipeline.errors import StepError
from pipeline.training.soft_targets import Distillation, are_probabilities, soft_objective
from pipeline.training.training_data import TrainingData

_BATCH_NORM_MOMENTUM = 0.9


class TrainedSettings(RewriteSettings):
    """What the settings of every technique that trains have in common."""

    epochs: int = Field(3, ge=1, le=1000)
    batch_size: int = Field(128, ge=1, le=65536)
    learning_rate: float = Field(0.001, gt=0, le=1)

    @property
    def taught(self) -> Distillation | None:
        """How it learns from the experiment's own model, if it does."""
        return None


class FineTunedSettings(TrainedSettings):
    """What the settings of every technique that trains a little have in common.

    With ``distillation`` it learns from the experiment's own model, before any step, as well as from the labels.
    """

    distillation: Distillation | None = None

    @property
    def taught(self) -> Distillation | None:
        """How it learns from the experiment's own model, if it does."""
        return self.distillation


def fine_tune(
    model: Any, data: TrainingData, settings: TrainedSettings, report: Report, callbacks: Sequence[Any] = ()
) -> None:
    """Train ``model`` (tf_keras) in place with Adam, the learning rate falling to zero as a cosine.

    The loss is sparse categorical cross-entropy, on logits unless the model's outputs are probabilities; with
    distillation see ``soft_targets``.

    Raises:
        StepError: if there are no labels, unless all is learned from a teacher.
    """
    import tensorflow as tf
    import tf_keras

    targets, loss = _objective(model, data, settings)
    epochs, batch_size = settings.epochs, settings.batch_size
    steps = max(1, data.count // batch_size)
    model.compile(
        optimizer=tf_keras.optimizers.Adam(
            tf_keras.optimizers.schedules.CosineDecay(settings.learning_rate, epochs * steps)
        ),
        loss=loss,
    )
    samples = tf.data.Dataset.from_tensor_slices((data.inputs(slice(None)), targets))
    batches = samples.shuffle(min(data.count, 60_000), seed=data.seed).batch(
        batch_size, drop_remainder=data.count >= batch_size
    )
    progress = _progress_callback(epochs, steps, report)
    with _quick_batch_norm(model):
        model.fit(batches.prefetch(2), epochs=epochs, verbose=0, callbacks=[*callbacks, progress])


@contextmanager
def _quick_batch_norm(model: Any) -> Iterator[None]:
    """Let batch normalization's averages follow quickly while training, in nested and wrapped layers too.

    With Keras's default momentum of 0.99 a few hundred steps leave them at what the weights were before: training
    accuracy of 100 % and test accuracy of chance.
    """
    import tf_keras

    norms = (layer for layer in model._flatten_layers() if isinstance(layer, tf_keras.layers.BatchNormalization))
    slow = [layer for layer in norms if layer.momentum > _BATCH_NORM_MOMENTUM]
    with set_meanwhile(slow, "momentum", _BATCH_NORM_MOMENTUM):
        yield


@contextmanager
def set_meanwhile(layers: Iterable[Any], attribute: str, value: object) -> Iterator[None]:
    """Set ``attribute`` of all of ``layers`` to ``value``, and back afterwards to what each had."""
    before = [(layer, getattr(layer, attribute)) for layer in layers]
    try:
        for layer, _ in before:
            setattr(layer, attribute, value)
        yield
    finally:
        for layer, had in before:
            setattr(layer, attribute, had)


def gives_probabilities(model: Any, data: TrainingData) -> bool:
    """Whether the outputs of ``model`` are probabilities rather than logits."""
    return are_probabilities(np.asarray(model(data.inputs(data.fixed_indices(8)), training=False)))


def _objective(model: Any, data: TrainingData, settings: TrainedSettings) -> tuple[npt.NDArray[Any], Any]:
    """Return what the model is to learn, a row for each training sample, and the loss."""
    import tf_keras

    from_logits = not gives_probabilities(model, data)
    if settings.taught is not None:
        return soft_objective(model, data, settings.taught, settings.batch_size, from_logits)
    labels = data.labels
    if labels is None:
        raise StepError("fine-tuning needs x_train and y_train; the data has only test samples")
    return labels, tf_keras.losses.SparseCategoricalCrossentropy(from_logits=from_logits)


def _progress_callback(epochs: int, steps: int, report: Report) -> Any:
    import tf_keras

    class Progress(tf_keras.callbacks.Callback):  # type: ignore[misc]
        epoch = 0

        def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
            self.epoch = epoch

        def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
            if batch % 10 == 0:
                report((self.epoch + (batch + 1) / steps) / epochs, f"epoch {self.epoch + 1}/{epochs}")

    return Progress()
