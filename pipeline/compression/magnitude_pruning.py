"""Magnitude pruning with fine-tuning, by TensorFlow Model Optimization.

Sources: M. Zhu, S. Gupta, "To prune, or not to prune: exploring the efficacy of pruning for model compression", 2017,
for the polynomial schedule (a cubic that is steep at first); A. Mishra et al., "Accelerating Sparse Deep Neural
Networks", 2021, for the 2:4 pattern.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from pipeline.compression import Report, _tfmot
from pipeline.errors import StepError
from pipeline.results.record import LeftLayer
from pipeline.training.fine_tuning import FineTunedSettings, fine_tune
from pipeline.training.training_data import TrainingData

_NAME = "magnitude_pruning"
_PRUNED_AFTER = 0.6
"""The share of the training after which the final sparsity is reached; the rest heals."""
_GROUP, _KEPT = 4, 2


class Settings(FineTunedSettings):
    """``final_sparsity`` is the share of zeros in each tensor that is pruned, at the end.

    ``pattern`` says where the zeros may be. ``unstructured``: anywhere. ``2:4``: two of every four along the inputs of
    a matrix product; that is always half, from the start. ``block``: whole blocks of ``block_size``, [inputs, outputs]
    of a matrix.
    """

    schedule: Literal["polynomial", "constant"] = "polynomial"
    initial_sparsity: float = Field(0.5, ge=0, lt=1)
    final_sparsity: float = Field(0.8, gt=0, lt=1)
    pattern: Literal["unstructured", "2:4", "block"] = "unstructured"
    block_size: list[int] = Field(default=[4, 1], min_length=2, max_length=2)

    @model_validator(mode="after")
    def _fit_together(self) -> Settings:
        if self.pattern == "2:4" and self.final_sparsity not in (0.5, Settings.model_fields["final_sparsity"].default):
            raise ValueError(
                f"final_sparsity is {self.final_sparsity}; the pattern 2:4 always leaves half, leave it out"
            )
        if self.pattern != "block" and self.block_size != Settings.model_fields["block_size"].default:
            raise ValueError(f"block_size goes with the pattern block; pattern is {self.pattern}")
        rows, columns = self.block_size
        # TF-MOT 0.8.1 widens a mask only after it has heightened it: [1, n] ends in an UnboundLocalError.
        if rows < 2 or columns < 1:
            raise ValueError(f"block_size is [{rows}, {columns}]; TF-MOT needs at least 2 inputs and 1 output")
        return self

    @property
    def sparsity(self) -> float:
        """The share of zeros that is asked for."""
        return 1 - _KEPT / _GROUP if self.pattern == "2:4" else self.final_sparsity


def untreated(model: Any, settings: Settings) -> list[LeftLayer]:
    """Return the layers with weights that are not pruned.

    Raises:
        StepError: if no layer can be pruned.
    """
    treated, left = _survey(model, settings)
    return left + _tfmot.partly(treated, _prunable)


def rewrite(model: Any, settings: Settings, data: TrainingData, report: Report) -> Any:
    """Return ``model`` (tf_keras) with small weights set to zero, fine-tuned meanwhile.

    Raises:
        StepError: if there are no labels to train with, no layer can be pruned, or the zeros did not come.
    """
    import tensorflow_model_optimization as tfmot

    sparsity = tfmot.sparsity.keras
    treated, _ = _survey(model, settings)
    _warn_of_clusters(treated, report)
    options = _options(sparsity, settings, data)
    wrapped = _tfmot.replaced(model, treated, lambda layer: sparsity.prune_low_magnitude(layer, **options))
    chosen = {id(layer) for layer in treated}
    with _tfmot.spared(layer for layer in _tfmot.layers_of(model) if id(layer) not in chosen) as callback:
        fine_tune(wrapped, data, settings, report, [sparsity.UpdatePruningStep(), callback])
    for layer in treated:
        for tensor in _prunable(layer):
            _check(_tfmot.name_of(tensor), tensor.numpy(), settings, report)
    return sparsity.strip_pruning(wrapped)


def _survey(model: Any, settings: Settings) -> tuple[list[Any], list[LeftLayer]]:
    return _tfmot.survey(_NAME, model, settings, lambda layer: _why_not(layer, settings))


def _why_not(layer: Any, settings: Settings) -> str:
    tensors = _prunable(layer)
    if not tensors:
        return "TF-MOT does not prune such layers"
    shapes = [tuple(tensor.shape) for tensor in tensors]
    if settings.pattern == "2:4":
        return _why_not_in_groups(layer, shapes)
    if settings.pattern == "block" and not all(_holds_blocks(shape, settings.block_size) for shape in shapes):
        return f"blocks need matrices of more than one block either way; the weights are {shapes[0]}"
    return ""


def _holds_blocks(shape: tuple[int, ...], block: list[int]) -> bool:
    # TF-MOT squeezes the matrix of blocks, and stumbles when one dimension is gone.
    return len(shape) == 2 and all(size > step for size, step in zip(shape, block, strict=True))


def _why_not_in_groups(layer: Any, shapes: list[tuple[int, ...]]) -> str:
    import tf_keras

    if isinstance(layer, tf_keras.layers.Conv2DTranspose | tf_keras.layers.Embedding):
        return "TF-MOT's groups of four would not run along its inputs"
    if not all(len(shape) in (2, 4) for shape in shapes):
        return f"2:4 needs weights of 2 or 4 dimensions; these are {shapes[0]}"
    if all(shape[-2] <= _KEPT for shape in shapes):
        return f"it has {shapes[0][-2]} input channels; 2:4 takes nothing from fewer than 3"
    return ""


def _prunable(layer: Any) -> list[Any]:
    """Return the variables that TF-MOT prunes in a layer; none when it refuses the layer."""
    import tensorflow_model_optimization as tfmot

    try:
        tfmot.sparsity.keras.prune_low_magnitude(layer)
    except ValueError:
        return []
    tensors: list[Any] = layer.get_prunable_weights()
    return tensors


def _options(sparsity: Any, settings: Settings, data: TrainingData) -> dict[str, Any]:
    options: dict[str, Any] = {"pruning_schedule": _schedule(sparsity, settings, _steps(settings, data))}
    if settings.pattern == "2:4":
        options["sparsity_m_by_n"] = (_GROUP - _KEPT, _GROUP)
    if settings.pattern == "block":
        options["block_size"] = tuple(settings.block_size)
    return options


def _steps(settings: Settings, data: TrainingData) -> int:
    return settings.epochs * max(1, data.count // settings.batch_size)


def _schedule(sparsity: Any, settings: Settings, steps: int) -> Any:
    frequency = max(1, steps // 50)
    if settings.schedule == "constant":
        return sparsity.ConstantSparsity(settings.final_sparsity, begin_step=0, frequency=frequency)
    return sparsity.PolynomialDecay(
        initial_sparsity=min(settings.initial_sparsity, settings.final_sparsity),
        final_sparsity=settings.final_sparsity,
        begin_step=0,
        # Masks change at multiples of the frequency only: the last of them must find the final sparsity.
        end_step=max(1, int(steps * _PRUNED_AFTER) // frequency * frequency),
        frequency=frequency,
    )


def _warn_of_clusters(layers: list[Any], report: Report) -> None:
    clustered = [_tfmot.name_of(t) for layer in layers for t in _prunable(layer) if _tfmot.is_clustered(t.numpy())]
    if clustered:
        report.note(
            f"{', '.join(clustered)} came clustered, and pruning trains each weight by itself; prune, then cluster"
        )


def _check(name: str, values: npt.NDArray[Any], settings: Settings, report: Report) -> None:
    """Compare the zeros that really are there with what was asked; equal magnitudes are kept together, so less is told.

    Raises:
        StepError: if fewer than half came, or a group of four has more than two weights.
    """
    share, asked = _tfmot.zero_share(values), settings.sparsity
    if settings.pattern == "2:4":
        if crowded := _crowded_groups(values):
            raise StepError(f"{_NAME} left {crowded} groups of four in {name} with more than {_KEPT} weights")
        asked = _share_in_groups(values.shape[-2])
    if share < 0.5 * asked:
        raise StepError(f"{_NAME} left a share of {share:.3f} zeros in {name}; expected about {asked:g}")
    if share < asked - max(0.02, 1 / values.size):
        report.note(f"{name} has a share of {share:.3f} zeros, less than the {asked:g} asked for")


def _crowded_groups(values: npt.NDArray[Any]) -> int:
    """Return how many groups of four along the inputs, the last axis but one, have more than two weights."""
    rows = np.moveaxis(values, -2, -1)
    rows = np.pad(rows, [(0, 0)] * (rows.ndim - 1) + [(0, -rows.shape[-1] % _GROUP)])
    return int((np.count_nonzero(rows.reshape(-1, _GROUP), axis=1) > _KEPT).sum())


def _share_in_groups(inputs: int) -> float:
    """Return the share of zeros that 2:4 leaves: a last group that is not full keeps two weights as well."""
    full, rest = divmod(inputs, _GROUP)
    return (full * (_GROUP - _KEPT) + max(0, rest - _KEPT)) / inputs
