"""Whether what is asked fits the model and its samples, seen before anything is built."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from device_agent import metrics
from pipeline.building.artifacts import SourceModel
from pipeline.config import Experiment
from pipeline.errors import DataError, ModelError
from pipeline.samples import Samples


def check_fit(experiment: Experiment, source: SourceModel, samples: Samples) -> None:
    """Raise, before anything is built, ModelError or DataError when what is asked does not fit the model."""
    stepped = [variant.name for variant in experiment.variants if variant.steps]
    if source.format == "tflite" and stepped:
        raise ModelError(f"{experiment.file}: variant {stepped[0]} has steps, but {_finished(source)}")
    expected, found = source.inputs[0].shape[1:], samples.sample_shape
    if len(expected) != len(found) or any(size not in (0, real) for size, real in zip(expected, found, strict=True)):
        where = experiment.data.file or f"task {experiment.task}"
        wanted = tuple(size or None for size in expected)
        raise DataError(f"{where}: samples have shape {found}; model {source.path} takes {wanted} for one sample")
    if np.dtype(source.inputs[0].sample_dtype).kind in "iu" and (samples.scale, samples.offset) != (1.0, 0.0):
        raise DataError(
            f"{experiment.file}: data.scale is {samples.scale:g} and data.offset {samples.offset:g}, but model "
            f"{source.path} takes {source.inputs[0].dtype}; expected 1 and 0"
        )
    labels = {"y_test": samples.y_test}
    if samples.y_train is not None and any(variant.rewriting for variant in experiment.variants):
        labels["y_train"] = samples.y_train
    for name, path in labels.items():
        _check_labels(experiment, source, name, np.load(path))


def _finished(source: SourceModel) -> str:
    """Return what is said of a flatbuffer that steps were asked for."""
    quantized = [name for name in source.weight_types if not name.startswith("float32")]
    if quantized:
        ends = f"inputs {source.inputs[0].dtype}, outputs {source.outputs[0].dtype}"
        words = f"is already quantized (weights {', '.join(quantized)}; {ends})"
    else:
        words = "is a finished float32 flatbuffer, whose layers are gone"
    return (
        f"{source.path} {words}; expected the .keras, .h5, .onnx or SavedModel that it was made from, or one variant "
        "without steps, which measures it as it is"
    )


def _check_labels(experiment: Experiment, source: SourceModel, name: str, labels: npt.NDArray[Any]) -> None:
    # One sample of each label is enough to see whether the metric takes them.
    some = np.unique(labels) if labels.ndim == 1 else labels[:1]
    outputs = np.zeros((len(some), *(size or int(some.max()) + 1 for size in source.outputs[0].shape[1:])))
    try:
        metrics.find(experiment.metric)(outputs, some)
    except ValueError as error:
        raise DataError(f"{experiment.file}: metric {experiment.metric} does not fit {name}: {error}") from error
