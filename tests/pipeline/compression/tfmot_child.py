"""Runs a technique of TF-MOT on tiny tf_keras models: ``python tfmot_child.py FOLDER CASES``; prints what came out.

CASES is JSON: {name: [model, [[technique, settings], …], more]}; ``more`` asks for what else is to be looked at. With
a technique's name in place of the steps nothing is trained.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np
import tf_keras
import tiny_models
from kept_report import KeptReport

from pipeline import compression, export
from pipeline.building import evidence, step_worker
from pipeline.compression import quantization
from pipeline.errors import StepError
from pipeline.flatbuffer.graph import read_model
from pipeline.model_formats.model_files import load_keras
from pipeline.training.training_data import TrainingData

layers = tf_keras.layers


class Own(layers.Layer):
    def build(self, shape):
        self.w = self.add_weight("w", (shape[-1], 8))

    def call(self, inputs):
        return inputs @ self.w


def tiny():
    return tiny_models.network(tf_keras)


def mixed():
    """Layers that TF-MOT treats beside ones that it does not."""
    inputs = tf_keras.Input((12, 12, 1))
    x = layers.Rescaling(2.0)(inputs)
    x = layers.Conv2D(8, 3, strides=2, name="conv")(x)
    x = layers.ReLU()(x)
    x = layers.DepthwiseConv2D(3, name="depthwise")(x)
    x = layers.PReLU(name="prelu")(x)
    x = layers.SeparableConv2D(8, 1, name="separable")(x)
    x = layers.Reshape((9, 8))(x)
    x = layers.Conv1D(8, 3, name="conv1d")(x)
    x = layers.TimeDistributed(layers.Dense(8), name="timed")(x)
    x = layers.Bidirectional(layers.SimpleRNN(4), name="both_ways")(x)
    x = Own(name="own")(x)
    return tf_keras.Model(inputs, layers.Dense(4, name="head")(x))


def nested():
    inner_inputs = tf_keras.Input((12, 12, 1))
    x = layers.Conv2D(8, 3, strides=2, use_bias=False, name="inner_conv")(inner_inputs)
    inner = tf_keras.Model(inner_inputs, layers.ReLU()(layers.BatchNormalization(name="inner_norm")(x)), name="inner")
    return tf_keras.Sequential([tf_keras.Input((12, 12, 1)), inner, layers.Flatten(), layers.Dense(4, name="head")])


def clashing():
    def part(name):
        return tf_keras.Sequential(
            [tf_keras.Input((12, 12, 1)), layers.Conv2D(1, 3, padding="same", name="conv")], name
        )

    return tf_keras.Sequential([tf_keras.Input((12, 12, 1)), part("a"), part("b"), layers.Flatten(), layers.Dense(4)])


def plain():
    """No normalization: a ReLU layer comes right after a convolution, and a layer is called twice."""
    inputs = tf_keras.Input((12, 12, 1))
    x = layers.ReLU()(layers.Conv2D(8, 3, strides=2, padding="same", name="conv")(inputs))
    twice = layers.Conv2D(8, 3, padding="same", name="twice")
    x = layers.Flatten()(layers.ReLU()(twice(layers.ReLU()(twice(x)))))
    return tf_keras.Model(inputs, layers.Dense(4, name="head")(x))


def in_part():
    """A layer that TF-MOT does not quantize between two that it does."""
    inputs = tf_keras.Input((12, 12, 1))
    x = layers.Reshape((36, 8))(layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(inputs))
    x = layers.Conv1D(8, 3, activation="relu", name="conv1d")(x)
    return tf_keras.Model(inputs, layers.Dense(4, name="head")(layers.Flatten()(x)))


def wide():
    """Kernels of so many inputs that each output's weights have all the values that the kernel has."""
    inputs = tf_keras.Input((12, 12, 1))
    x = layers.Conv2D(16, 3, padding="same", activation="relu", name="conv")(inputs)
    x = layers.Conv2D(8, 3, strides=2, activation="relu", name="wide")(x)
    return tf_keras.Model(inputs, layers.Dense(4, name="head")(layers.Flatten()(x)))


def depthwise():
    inputs = tf_keras.Input((12, 12, 1))
    return tf_keras.Model(inputs, layers.Flatten()(layers.DepthwiseConv2D(3, name="depthwise")(inputs)))


def trained(build: Any, data: TrainingData) -> Any:
    step_worker.be_deterministic(0)
    model = build()
    logits = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=build is not tiny)
    model.compile(tf_keras.optimizers.Adam(0.01), logits)
    model.fit(data.inputs(slice(None)), data.labels, epochs=5, batch_size=32, verbose=0)
    return model


def tensors(model: Any) -> dict[str, Any]:
    found = {name: values for name, values in evidence.named_weights(model) if values.ndim >= 2}
    return {name: [float((values == 0).mean()), len(np.unique(values))] for name, values in found.items()}


def done(case: list[Any], data: TrainingData, folder: Path) -> dict[str, Any]:
    build, steps, more = case
    if isinstance(steps, str):
        return survey(build, steps)
    model, report, left = trained(globals()[build], data), KeptReport(), []
    states, digests = [], []
    try:
        for name, settings in steps:
            technique = compression.technique(name)
            section = technique.Settings.model_validate({"epochs": 2, "batch_size": 32, **settings})
            left = [asdict(layer) for layer in technique.untreated(model, section)]
            report.notes.clear()
            model = technique.rewrite(model, section, data, report)
            states.append(tensors(model))
            digests.append(evidence.digest(model))
    except StepError as error:
        return {"error": str(error), "left": left}
    outputs = np.asarray(model(data.inputs(slice(None)), training=False))
    found = {
        "left": {layer["layer"]: layer["reason"] for layer in left},
        "notes": report.notes,
        "tensors": states,
        "digests": digests,
        "score": float((outputs.argmax(-1) == data.labels).mean()),
    }
    return found | {name: globals()[name](model, data, folder) for name in more}


def groups(model: Any, data: TrainingData, folder: Path) -> int:
    """The most weights in any four in a row along the inputs."""
    most = 0
    for _, values in evidence.named_weights(model):
        if values.ndim >= 2 and values.shape[-2] % 4 == 0:
            rows = np.moveaxis(values, -2, -1).reshape(-1, 4)
            most = max(most, int(np.count_nonzero(rows, axis=1).max()))
    return most


def blocks(model: Any, data: TrainingData, folder: Path) -> bool:
    """Whether each four inputs of an output of the head are all zero or none."""
    kernel = next(values for name, values in evidence.named_weights(model) if "head" in name or "dense" in name)
    zeros = (kernel.reshape(-1, 4, kernel.shape[-1]) == 0).sum(axis=1)
    return set(np.unique(zeros)) == {0, 4}


def momenta(model: Any, data: TrainingData, folder: Path) -> list[float]:
    return [layer.momentum for layer in model._flatten_layers() if hasattr(layer, "momentum")]


def reloaded(model: Any, data: TrainingData, folder: Path) -> float:
    """The largest difference of outputs once the model was saved and loaded."""
    model.save(folder / "model.keras")
    again = load_keras(folder / "model.keras", "keras2")
    inputs = data.inputs(slice(0, 50))
    return float(np.abs(np.asarray(model(inputs)) - np.asarray(again(inputs))).max())


def flatbuffers(model: Any, data: TrainingData, folder: Path) -> dict[str, Any]:
    """Both conversions: the types that their operators take, and how near they are to the model."""
    source, report = export.Convertible(model, data), KeptReport()
    inputs = data.inputs(slice(0, 30))
    expected = source.outputs(inputs)
    integer = quantization.convert(source, quantization.Settings(mode="int8", calibration_samples=50), data, report)
    found: dict[str, Any] = {"notes": report.notes}
    for name, content in (("alone", source.flatbuffer()), ("int8", integer)):
        graph = read_model(content).main
        found[name] = {
            "operators": [operator.name for operator in graph.operators],
            "types": sorted({graph.tensors[place].dtype for x in graph.operators for place in x.inputs if place >= 0}),
            "io": [graph.tensors[place].dtype for place in (*graph.inputs, *graph.outputs)],
            "distinct": [tensor.distinct for tensor in evidence.flatbuffer_tensors(content)],
            "sha256": export.sha256(content),
            "snr_db": export.snr_db(expected, export.flatbuffer_outputs(content, inputs)),
        }
    return found


def barely_calibrated(model: Any, data: TrainingData, folder: Path) -> str:
    settings = quantization.Settings(mode="int8", calibration_samples=1)
    return export.sha256(quantization.convert(export.Convertible(model, data), settings, data, KeptReport()))


def again(model: Any, data: TrainingData, folder: Path) -> str:
    """What is said to training it under quantization once more."""
    technique = compression.technique("quantization_aware_training")
    try:
        technique.untreated(model, technique.Settings())
    except StepError as error:
        return str(error)
    return ""


def survey(build: str, name: str) -> dict[str, Any]:
    """What a technique will leave of a model, told without training."""
    technique = compression.technique(name)
    try:
        left = technique.untreated(globals()[build](), technique.Settings())
    except StepError as error:
        return {"error": str(error)}
    return {"left": {layer.layer: layer.reason for layer in left}}


def refused(model: Any, data: TrainingData, folder: Path) -> str:
    try:
        quantization.convert(export.Convertible(model, data), quantization.Settings(mode="float16"), data, KeptReport())
    except StepError as error:
        return str(error)
    return ""


def main() -> None:
    folder, cases = Path(sys.argv[1]), json.loads(sys.argv[2])
    x, y = tiny_models.samples(256, 0)
    np.save(folder / "x.npy", x)
    np.save(folder / "y.npy", y)
    data = TrainingData(folder / "x.npy", folder / "y.npy", 1.0, 0.0, 0, "litert")
    print(json.dumps({name: done(case, data, folder) for name, case in cases.items()}))


if __name__ == "__main__":
    main()
