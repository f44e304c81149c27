"""Tries one technique on every type of layer: ``layer_types.py CASE OUT.json``, with real TensorFlow.

Each model has a layer of the type, called "tested", behind a convolution if it is about images, before a Dense "other"
and a "head" that no technique may touch: a technique that cannot treat the type still has something to do. What became
of the layer is not asked of the technique: it is found in the weights that came out, and a layer that was neither
treated nor named is "silent".
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import compression, export
from pipeline.building import evidence
from pipeline.building.artifacts import check_ends
from pipeline.compression._left import LeftReport
from pipeline.errors import EdgepressError
from pipeline.flatbuffer import costs
from pipeline.flatbuffer.graph import read_model
from pipeline.results.record import LeftLayer
from pipeline.training.training_data import Teacher, TrainingData

SAMPLES, CLASSES = 96, 3
WORKS, NOTHING, LEFT, REFUSED = "works", "nothing to treat", "left as it is", "refused"
SILENT, CRASHED = "silent", "crashed"
TOLD = (WORKS, NOTHING, LEFT, REFUSED)

Layers = Any
Tensor = Any


@dataclass(frozen=True)
class LayerType:
    """A type of layer: the shape of one sample, and what is built between the input and the head."""

    shape: tuple[int, ...]
    build: Callable[[Layers, Tensor], Tensor]
    tokens: bool = False


@dataclass(frozen=True)
class Case:
    """A technique with settings that leave the head alone, and how its effect on a layer is seen."""

    technique: str
    settings: dict[str, Any]


def _nested(layers: Layers, x: Tensor) -> Tensor:
    import keras

    inner = keras.Input(x.shape[1:])
    y = layers.Conv2D(16, 3, name="tested_inner")(inner)
    return keras.Model(inner, layers.ReLU()(y), name="tested")(x)


# Every tested kernel has more weights than this, and the head fewer: some techniques leave smaller ones alone.
WEIGHTS = 1024
IMAGE, SEQUENCE = (8, 8, 16), (8, 24)
LAYER_TYPES = {
    "Conv1D": LayerType(SEQUENCE, lambda layers, x: layers.Conv1D(24, 3, name="tested")(x)),
    "Conv2D": LayerType(IMAGE, lambda layers, x: layers.Conv2D(16, 3, name="tested")(x)),
    "Conv3D": LayerType((5, 6, 6, 8), lambda layers, x: layers.Conv3D(16, 3, name="tested")(x)),
    "DepthwiseConv2D": LayerType(
        IMAGE, lambda layers, x: layers.DepthwiseConv2D(3, depth_multiplier=8, name="tested")(x)
    ),
    "SeparableConv2D": LayerType(
        IMAGE, lambda layers, x: layers.SeparableConv2D(72, 3, depth_multiplier=8, name="tested")(x)
    ),
    "Conv2DTranspose": LayerType(IMAGE, lambda layers, x: layers.Conv2DTranspose(16, 3, name="tested")(x)),
    "Dense": LayerType((48,), lambda layers, x: layers.Dense(32, activation="relu", name="tested")(x)),
    "BatchNormalization": LayerType(IMAGE, lambda layers, x: layers.BatchNormalization(name="tested")(x)),
    "LayerNormalization": LayerType(SEQUENCE, lambda layers, x: layers.LayerNormalization(name="tested")(x)),
    "MultiHeadAttention": LayerType(SEQUENCE, lambda layers, x: layers.MultiHeadAttention(4, 16, name="tested")(x, x)),
    "Embedding": LayerType((8,), lambda layers, x: layers.Embedding(100, 16, name="tested")(x), tokens=True),
    "LSTM": LayerType(SEQUENCE, lambda layers, x: layers.LSTM(24, name="tested")(x)),
    "GRU": LayerType(SEQUENCE, lambda layers, x: layers.GRU(24, name="tested")(x)),
    "nested model": LayerType(IMAGE, _nested),
    "several inputs": LayerType((24,), lambda layers, x: layers.Dense(16, name="tested")(x)),
    "several outputs": LayerType((24,), lambda layers, x: layers.Dense(16, name="tested")(x)),
}
TRAINED: dict[str, Any] = {"epochs": 1, "batch_size": 32, "exclude": ["head"]}
CASES = {
    "magnitude_pruning": Case("magnitude_pruning", {**TRAINED, "final_sparsity": 0.6, "schedule": "constant"}),
    "magnitude_pruning 2:4": Case("magnitude_pruning", {**TRAINED, "pattern": "2:4"}),
    "magnitude_pruning block": Case("magnitude_pruning", {**TRAINED, "pattern": "block", "final_sparsity": 0.6}),
    "channel_pruning": Case("channel_pruning", {**TRAINED, "ratio": 0.5}),
    "weight_clustering": Case("weight_clustering", {**TRAINED, "clusters": 4}),
    "quantization_aware_training": Case("quantization_aware_training", TRAINED),
    "low_rank": Case("low_rank", {**TRAINED, "rank": 1}),
    "distillation": Case("distillation", {**TRAINED, "width": 0.5}),
    "float16": Case("quantization", {"mode": "float16"}),
    "dynamic_range": Case("quantization", {"mode": "dynamic_range"}),
    "int8": Case("quantization", {"mode": "int8"}),
    "int16x8": Case("quantization", {"mode": "int16x8"}),
    "int8_weight_only": Case("quantization", {"mode": "int8_weight_only"}),
    "int4": Case("quantization", {"mode": "int4"}),
    "int4 in blocks": Case("quantization", {"mode": "int4", "block_size": 32}),
    "int8 with int4": Case(
        "quantization",
        {"mode": "int8", "allow_float": True, "overrides": [{"operators": "FULLY_CONNECTED", "mode": "int4"}]},
    ),
    "selective_quantization": Case("selective_quantization", {"min_snr_db": 10.0, "calibration_samples": 48}),
}


def main(case: str, out: Path) -> None:
    """Write what became of each type of layer, as {layer type: [outcome, detail]}."""
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    _import_once()
    found = {name: _in_a_process(CASES[case], name) for name in LAYER_TYPES}
    out.write_text(json.dumps(found, indent=1))


def _import_once() -> None:
    """Import what every child needs; TensorFlow has no threads yet, so that the process may still be forked."""
    import keras
    import tensorflow
    import tensorflow_model_optimization
    import tf_keras

    assert keras and tensorflow and tensorflow_model_optimization and tf_keras


def _in_a_process(case: Case, name: str) -> tuple[str, str]:
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe(duplex=False)
    child = fork.Process(target=_child, args=(case, name, theirs))
    child.start()
    theirs.close()
    try:
        outcome: tuple[str, str] = ours.recv()
    except EOFError:
        child.join()
        outcome = CRASHED, f"its process ended with {child.exitcode}"
    child.join()
    print(case.technique, name, *outcome, flush=True)
    return outcome


def _child(case: Case, name: str, pipe: Connection) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        pipe.send(_tried(case, name, LAYER_TYPES[name], Path(scratch)))


def _tried(case: Case, name: str, layer_type: LayerType, scratch: Path) -> tuple[str, str]:
    model = _model(name, layer_type)
    path = scratch / "model.keras"
    model.save(path)
    try:
        # What every run asks first.
        check_ends(path, *export.model_tensors(model))
    except EdgepressError as error:
        return REFUSED, str(error)
    data, report = _data(layer_type, path, scratch), LeftReport()
    technique = compression.technique(case.technique)
    try:
        settings = technique.Settings.model_validate(case.settings)
        if compression.rewrites(case.technique):
            return _rewritten(technique, settings, model, data, report)
        source = export.Convertible(model, data)
        told = {(layer.layer, layer.reason) for layer in technique.untreated(source, settings, data)}
        content = technique.convert(source, settings, data, report)
        evidence.check_converted(case.technique, content)
        left = {(layer.layer, layer.reason) for layer in report.left if not layer.chosen}
        if told != left:
            return SILENT, f"told before: {sorted(told)}; left: {sorted(left)}"
        return _converted(content, report.left)
    except EdgepressError as error:
        return REFUSED, " ".join(str(error).split())[:160]


def _rewritten(technique: Any, settings: Any, model: Any, data: TrainingData, report: LeftReport) -> tuple[str, str]:
    from pipeline.model_formats.model_files import as_tf_keras

    twin = as_tf_keras(model)
    left = technique.untreated(twin, settings)
    before = _tested_weights(twin)
    rewritten = technique.rewrite(twin, settings, data, report)
    named = [layer for layer in [*left, *report.left] if "tested" in layer.layer]
    content = export.Convertible(rewritten, data).flatbuffer()
    has_weights = any(values.ndim >= 2 for values in before.values())
    if case_of(technique) == "quantization_aware_training" and has_weights and not named:
        # TF-MOT takes some layers apart and calls the parts otherwise: the flatbuffer says what they became.
        return _converted(content, named)
    return _judged(_was_treated(case_of(technique), before, rewritten, settings), named, has_weights)


def case_of(technique: Any) -> str:
    """Return a technique's name, which is that of its module."""
    return str(technique.__name__.rpartition(".")[2])


def _was_treated(technique: str, before: dict[str, np.ndarray[Any, Any]], model: Any, settings: Any) -> bool:
    after = _tested_weights(model)
    kernels = [values for values in after.values() if values.ndim >= 2]
    if technique == "magnitude_pruning":
        return any((values == 0).mean() >= 0.45 for values in kernels)
    if technique == "weight_clustering":
        return any(len(np.unique(values)) <= settings.clusters for values in kernels)
    if technique == "quantization_aware_training":
        return any("quant" in layer.name and "tested" in layer.name for layer in model._flatten_layers())
    return sum(values.size for values in after.values()) < sum(values.size for values in before.values())


def _converted(content: bytes, left: list[LeftLayer]) -> tuple[str, str]:
    weights = [tensor for tensor in costs.weight_tensors(read_model(content)) if math.prod(tensor.shape) >= WEIGHTS]
    floats = [tensor.name for tensor in weights if tensor.dtype == "float32"]
    if not floats:
        return (WORKS, "") if weights else (NOTHING, "")
    return (LEFT, left[0].reason) if left else (SILENT, f"still float32: {', '.join(floats)}")


def _judged(treated: bool, named: list[LeftLayer], has_weights: bool) -> tuple[str, str]:
    if treated:
        return WORKS, "; ".join(layer.reason for layer in named)
    if named:
        return LEFT, named[0].reason
    if not has_weights:
        return NOTHING, ""
    return SILENT, "neither treated nor named"


def _tested_weights(model: Any) -> dict[str, np.ndarray[Any, Any]]:
    return {
        name: values for name, values in evidence.named_weights(model) if "tested" in name and "optimizer" not in name
    }


def _model(name: str, layer_type: LayerType) -> Any:
    import keras

    layers = keras.layers
    keras.utils.set_random_seed(0)
    inputs = keras.Input(layer_type.shape, dtype="int32" if layer_type.tokens else "float32", name="input")
    before = layers.Conv2D(16, 1, name="before")(inputs) if layer_type.shape == IMAGE else inputs
    x = layer_type.build(layers, before)
    if name == "several inputs":
        other = keras.Input(layer_type.shape, name="other")
        return keras.Model([inputs, other], layers.Dense(CLASSES, name="head")(layers.Concatenate()([x, other])))
    flat = x if len(x.shape) == 2 else layers.Flatten(name="flat")(x)
    other = layers.Dense(32, activation="relu", name="other")(flat)
    head = layers.Dense(CLASSES, activation="softmax", name="head")(other)
    return keras.Model(inputs, [head, x] if name == "several outputs" else head)


def _data(layer_type: LayerType, model: Path, scratch: Path) -> TrainingData:
    random = np.random.default_rng(0)
    shape = (SAMPLES, *layer_type.shape)
    x = random.integers(0, 20, shape).astype(np.int32) if layer_type.tokens else random.random(shape, np.float32)
    np.save(scratch / "x.npy", x)
    np.save(scratch / "y.npy", random.integers(0, CLASSES, SAMPLES))
    dtype = "int32" if layer_type.tokens else "float32"
    teacher = Teacher(model, "keras3")
    return TrainingData(scratch / "x.npy", scratch / "y.npy", 1.0, 0.0, 0, "litert", dtype, teacher)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
