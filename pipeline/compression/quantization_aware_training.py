"""Quantization-aware training by TensorFlow Model Optimization: weights and ranges that are learned under rounding.

Sources: B. Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference", 2018; TensorFlow's guide to collaborative optimization for PQAT, CQAT and PCQAT, which keep the zeros and
clusters that a tensor comes with.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import Field

from pipeline.compression import Report, _fake_quantization, _tfmot
from pipeline.compression._flattening import flattened
from pipeline.errors import StepError
from pipeline.model_formats.model_files import is_quantization_aware
from pipeline.results.record import LeftLayer
from pipeline.training.fine_tuning import FineTunedSettings, fine_tune
from pipeline.training.training_data import TrainingData

_NAME = "quantization_aware_training"
_MEANINGS = {
    "QAT": "nothing to keep",
    "PQAT": "keeps zeros",
    "CQAT": "keeps clusters",
    "PCQAT": "keeps zeros and clusters",
}


class Settings(FineTunedSettings):
    """Nothing of its own: how each tensor is treated follows from the zeros and the distinct values it comes with."""

    learning_rate: float = Field(0.0002, gt=0, le=1)


@dataclass(frozen=True)
class _Tensor:
    """A tensor that is trained, how TF-MOT treats it, and what came in."""

    variable: Any
    kind: str
    zeros: float
    distinct: int

    @property
    def name(self) -> str:
        return _tfmot.name_of(self.variable)


def untreated(model: Any, settings: Settings) -> list[LeftLayer]:
    """Return the layers with weights that are left in float.

    Raises:
        StepError: if TF-MOT refuses the model, or can quantize none of its layers.
    """
    # TF-MOT's own refusals, too, are to come before any training.
    outline(model, settings)
    return _survey(_flat(model), settings)[1]


def outline(model: Any, settings: Settings) -> Any:
    """Return ``model`` (tf_keras) with TF-MOT's wrappers, whose ranges nobody has learned; raises as ``untreated``."""
    flat = _flat(model)
    return _fake_quantization.wrapped(flat, _survey(flat, settings)[0])


def rewrite(model: Any, settings: Settings, data: TrainingData, report: Report) -> Any:
    """Return ``model`` (tf_keras) trained under rounding, with TF-MOT's wrappers, which hold the ranges.

    Raises:
        StepError: if there are no labels to train with, or TF-MOT refuses the model.
    """
    import tensorflow_model_optimization as tfmot

    wrapped = outline(model, settings)
    tensors = list(_tensors(wrapped))
    _tell_of_choice(tensors, report)
    _tell_of_float(_flat(model), report)
    _fake_quantization.measure_ranges(wrapped, data, settings.batch_size)
    preserved = {id(tensor.variable) for tensor in tensors if tensor.kind in ("PQAT", *_fake_quantization.CLUSTERED)}
    others = [layer for layer in wrapped.layers if not preserved & {id(kernel) for kernel in _tfmot.kernels(layer)}]
    with _tfmot.spared(others) as callback:
        fine_tune(wrapped, data, settings, report, [callback])
    _fake_quantization.share_ranges(wrapped)
    for tensor in tensors:
        _tell_of_loss(tensor, report)
    return _fake_quantization.storable(tfmot.experimental.combine.strip_clustering_cqat(wrapped), data)


def _flat(model: Any) -> Any:
    if is_quantization_aware(model):
        raise StepError(f"{_NAME} cannot treat this model: it has been trained under quantization before")
    return flattened(_NAME, model)


def _survey(model: Any, settings: Settings) -> tuple[list[Any], list[LeftLayer]]:
    times = _fake_quantization.calls(model) if _tfmot.is_graph(model) else Counter()
    return _tfmot.survey(_NAME, model, settings, lambda layer: _why_not(layer, times[id(layer)]))


def _why_not(layer: Any, times: int) -> str:
    if times > 1:
        return f"it is called {times} times, and TF-MOT learns one range for all; it stays in float"
    return "" if _fake_quantization.supports(layer) else "TF-MOT does not quantize such layers; it stays in float"


def _tensors(model: Any) -> Iterator[_Tensor]:
    """Yield the kernels of a model with TF-MOT's wrappers, those that stay in float too."""
    for layer in model.layers:
        kinds = {
            id(weight): _fake_quantization.kind_of(quantizer)
            for weight, quantizer, _ in getattr(layer, "_weight_vars", [])
        }
        for kernel in _tfmot.kernels(layer):
            # TF-MOT's own copies and centroids have names that end so.
            if not _tfmot.name_of(kernel).endswith("_tf"):
                values = kernel.numpy()
                distinct = len(np.unique(values))
                yield _Tensor(kernel, kinds.get(id(kernel), ""), _tfmot.zero_share(values), distinct)


def _tell_of_choice(tensors: list[_Tensor], report: Report) -> None:
    for kind, meaning in _MEANINGS.items():
        named = [tensor.name for tensor in tensors if tensor.kind == kind]
        if named:
            report.note(f"{kind} ({meaning}): {', '.join(named)}")


def _tell_of_float(model: Any, report: Report) -> None:
    import tf_keras

    rest = [layer for layer in model.layers if not _tfmot.kernels(layer) and not _fake_quantization.supports(layer)]
    named = [f"{x.name} ({type(x).__name__})" for x in rest if not isinstance(x, tf_keras.layers.InputLayer)]
    if named:
        report.note(f"without weights and without ranges of their own: {', '.join(named)}")


def _tell_of_loss(tensor: _Tensor, report: Report) -> None:
    values = tensor.variable.numpy()
    share, distinct = _tfmot.zero_share(values), len(np.unique(values))
    if _tfmot.PRUNED <= tensor.zeros < 1 and share < tensor.zeros - 0.001:
        report.note(f"{tensor.name} had a share of {tensor.zeros:.3f} zeros, and has {share:.3f}")
    if tensor.kind in _fake_quantization.CLUSTERED and distinct > tensor.distinct:
        report.note(f"{tensor.name} had {tensor.distinct} distinct values, and has {distinct}")
