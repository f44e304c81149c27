"""Learning from what a teacher answers instead of, or as well as, from labels.

Source: G. Hinton, O. Vinyals, J. Dean, "Distilling the Knowledge in a Neural Network", arXiv:1503.02531.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from pipeline.errors import StepError
from pipeline.export import Convertible
from pipeline.model_formats.model_files import load_keras
from pipeline.training.training_data import TrainingData
from pipeline.yaml_file import Section

_LEAST_PROBABILITY = 1e-30
"""Keeps the logarithm of a probability finite, and the slope of it within float32."""


class Distillation(Section):
    """``temperature`` softens the outputs of teacher and student; ``weight`` is the share of the teacher in the loss.

    The labels have the rest. With ``weight`` 1 none are needed.
    """

    temperature: float = Field(4.0, gt=0, le=1000)
    weight: float = Field(0.5, gt=0, le=1)


Loss = Callable[[Any, Any], Any]


def soft_objective(
    student: Any, data: TrainingData, distillation: Distillation, batch_size: int, from_logits: bool
) -> tuple[npt.NDArray[np.float32], Loss]:
    """Return what ``student`` is to learn, a row for each training sample, and the loss that takes those rows.

    A row [classes + 1] has the teacher's logits and the label, 0 where there are none. The loss is
    ``weight T² H(teacher / T, student / T) + (1 - weight) H(label, student)``, H being the cross-entropy.

    Raises:
        StepError: if labels are needed and there are none, or teacher and student do not answer alike.
    """
    labels = data.labels
    if labels is None and distillation.weight < 1:
        raise StepError(
            f"distillation with weight {distillation.weight:g} needs x_train and y_train; the data has only test "
            "samples: only weight 1 can do without labels"
        )
    taught = teacher_logits(data, batch_size)
    _check_alike(taught.shape[1:], student)
    hard = np.zeros(taught.shape[:-1]) if labels is None else labels
    rows = np.concatenate([taught, hard[..., np.newaxis]], axis=-1, dtype=np.float32)
    return rows, _loss(distillation, from_logits)


def teacher_logits(data: TrainingData, batch_size: int) -> npt.NDArray[np.float32]:
    """Return the logits [count, …, classes] of the experiment's own model on all training samples.

    Where it gives probabilities these are their logarithms, which softmax cannot tell from the logits.
    """
    assert data.teacher is not None
    model = load_keras(data.teacher.path, data.teacher.format)
    outputs = Convertible(model, data).training_outputs(batch_size)
    return np.log(np.maximum(outputs, _LEAST_PROBABILITY)) if are_probabilities(outputs) else outputs


def are_probabilities(outputs: npt.NDArray[Any]) -> bool:
    """Whether outputs [samples, …, classes] are probabilities rather than logits."""
    return bool((outputs >= 0).all() and np.allclose(outputs.sum(axis=-1), 1, atol=1e-3))


def _loss(distillation: Distillation, from_logits: bool) -> Loss:
    import tensorflow as tf

    temperature, weight = distillation.temperature, distillation.weight

    def loss(rows: Any, outputs: Any) -> Any:
        logits = outputs if from_logits else tf.math.log(tf.maximum(outputs, _LEAST_PROBABILITY))
        soft = tf.nn.softmax_cross_entropy_with_logits(
            tf.nn.softmax(rows[..., :-1] / temperature), logits / temperature
        )
        # The slope of the soft part falls with the square of the temperature.
        total = weight * temperature**2 * soft
        if weight < 1:
            labels = tf.cast(rows[..., -1], tf.int32)
            total += (1 - weight) * tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        return total

    return loss


def _check_alike(taught: tuple[int, ...], student: Any) -> None:
    learns = tuple(student.outputs[0].shape[1:])
    fits = len(taught) == len(learns) and all(size in (None, real) for size, real in zip(learns, taught, strict=True))
    if not fits or taught[-1] < 2:
        raise StepError(
            f"the teacher answers one sample with shape {taught} and this model with {learns}; expected the same, of "
            "two classes at least"
        )
