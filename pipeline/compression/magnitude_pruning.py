"""Magnitude pruning with fine-tuning, by TensorFlow Model Optimization.

Source: M. Zhu, S. Gupta, "To prune, or not to prune: exploring the efficacy of pruning for model compression", 2017,
for the polynomial schedule (a cubic that is steep at first).
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from pipeline.compression import Report
from pipeline.errors import StepError
from pipeline.fine_tuning import FineTunedSettings, fine_tune
from pipeline.results.record import LeftLayer
from pipeline.training_data import TrainingData

_PRUNED_AFTER = 0.6
"""The share of the training after which the final sparsity is reached; the rest heals."""


class Settings(FineTunedSettings):
    """``final_sparsity`` is the share of zeros in each prunable tensor at the end."""

    schedule: Literal["polynomial", "constant"] = "polynomial"
    initial_sparsity: float = Field(0.5, ge=0, lt=1)
    final_sparsity: float = Field(0.8, gt=0, lt=1)


def untreated(model: Any, settings: Settings) -> list[LeftLayer]:
    """Return the layers with weights that TF-MOT does not prune."""
    return []


def rewrite(model: Any, settings: Settings, data: TrainingData, report: Report) -> Any:
    """Return ``model`` (tf_keras) with small weights set to zero, fine-tuned meanwhile.

    Raises:
        StepError: if there are no labels to train with, no layer can be pruned, or the zeros did not come.
    """
    import tensorflow_model_optimization as tfmot

    sparsity = tfmot.sparsity.keras
    wrapped = _wrapped(sparsity, model, settings, _steps(settings, data))
    fine_tune(wrapped, data, settings, report, [sparsity.UpdatePruningStep()])
    pruned = sparsity.strip_pruning(wrapped)
    _check(pruned, settings)
    return pruned


def _steps(settings: Settings, data: TrainingData) -> int:
    return max(1, settings.epochs * -(-data.count // settings.batch_size))


def _wrapped(sparsity: Any, model: Any, settings: Settings, steps: int) -> Any:
    frequency = max(1, steps // 50)
    if settings.schedule == "polynomial":
        schedule = sparsity.PolynomialDecay(
            initial_sparsity=min(settings.initial_sparsity, settings.final_sparsity),
            final_sparsity=settings.final_sparsity,
            begin_step=0,
            end_step=max(1, int(steps * _PRUNED_AFTER)),
            frequency=frequency,
        )
    else:
        schedule = sparsity.ConstantSparsity(settings.final_sparsity, begin_step=0, frequency=frequency)
    try:
        return sparsity.prune_low_magnitude(model, pruning_schedule=schedule)
    except ValueError as error:
        raise StepError(f"magnitude_pruning cannot treat this model: {error}") from error


def _check(model: Any, settings: Settings) -> None:
    """A step that changed nothing is a failure: count the zeros that really are there."""
    kernels = [weight.numpy() for weight in model.trainable_weights if weight.shape.rank >= 2]
    size = sum(kernel.size for kernel in kernels)
    zeros = sum(int((kernel == 0).sum()) for kernel in kernels)
    if zeros < 0.5 * settings.final_sparsity * size:
        raise StepError(
            f"magnitude_pruning left {zeros} of {size} kernel weights at zero; expected a share of about "
            f"{settings.final_sparsity}: most layers of this model cannot be pruned by TF-MOT"
        )
