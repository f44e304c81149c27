"""Converts models in a process of its own: ``python converting_child.py FOLDER CASES.json``, with real TensorFlow.

``FOLDER`` holds the tiny models and, as ``x_train.npy`` and so on, their samples. A case is a list of technique,
settings and how it differs from the usual: ``model`` (a file of the folder, or one of ``MODELS`` below), ``runtime``,
``one_class``, ``samples``. The answer to each is a line of JSON: what it made, or the error.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from kept_report import KeptReport

os.environ["TF_USE_LEGACY_KERAS"] = "1"
FOLDER = Path(sys.argv[1])


def trained_for_int8() -> Any:
    """The little network with TF-MOT's wrappers, whose ranges have seen a few samples."""
    import tensorflow_model_optimization as tfmot
    import tf_keras

    model = tfmot.quantization.keras.quantize_model(tf_keras.models.load_model(FOLDER / "keras2.h5", compile=False))
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(np.load(FOLDER / "x_train.npy")[:64], np.load(FOLDER / "y_train.npy")[:64], verbose=0)
    return model


def quantized_by_keras() -> Any:
    import keras

    model = keras.models.load_model(FOLDER / "keras3.keras", compile=False)
    model.quantize("int8")
    return model


def sequence(**how: Any) -> Any:
    """A recurrent network over the rows of an image."""
    import keras

    inputs = keras.Input((12, 12, 1))
    rows = keras.layers.Reshape((12, 12))(inputs)
    return keras.Model(inputs, keras.layers.Dense(4)(keras.layers.LSTM(8, **how)(rows)))


def mixture() -> Any:
    """Layers that int4, blocks of 32 or int16 do not fit: depthwise, normalization, Dense of 40 inputs."""
    import keras

    layers = keras.layers
    inputs = keras.Input((12, 12, 1))
    x = layers.DepthwiseConv2D(3, depth_multiplier=4, name="spread")(inputs)
    x = layers.Dense(40, name="wide")(layers.Flatten()(x))
    x = layers.LayerNormalization(name="norm")(x)
    return keras.Model(inputs, layers.Dense(4, name="narrow")(x))


def large() -> Any:
    """More than 256 KiB of weights, which ai-edge-quantizer writes behind the flatbuffer."""
    import keras

    inputs = keras.Input((12, 12, 1))
    x = keras.layers.Dense(2048, activation="relu", name="first")(keras.layers.Flatten()(inputs))
    return keras.Model(inputs, keras.layers.Dense(64, name="second")(x))


def outlier() -> Any:
    """The little network with one channel 300 times as large as the others, and weights that make up for it."""
    import keras

    model = keras.models.clone_model(model_of("keras3.keras"))
    model.set_weights(model_of("keras3.keras").get_weights())
    kernel, bias = model.layers[4].get_weights()
    head, *rest = model.layers[-1].get_weights()
    rows = head.reshape(-1, kernel.shape[-1], head.shape[-1])
    channel = int(np.abs(rows).sum(axis=(0, 2)).argmin())
    large = np.ones(kernel.shape[-1], np.float32)
    large[channel] = 300
    _, _, norm, _, second, *_ = model.layers
    for variable in (norm.gamma, norm.beta):
        variable.assign(np.asarray(variable) * large)
    second.set_weights([kernel / large[:, None] * large, bias * large])
    model.layers[-1].set_weights([(rows / large[:, None]).reshape(head.shape), *rest])
    return model


MODELS = {
    "outlier": outlier,
    "trained_for_int8": trained_for_int8,
    "quantized_by_keras": quantized_by_keras,
    "loop": sequence,
    "unrolled": lambda: sequence(unroll=True),
    "mixture": mixture,
    "large": large,
}


@functools.cache
def model_of(name: str) -> Any:
    """Return a model, one for all cases that ask for it."""
    import keras

    from pipeline.model_formats.model_files import detect_format, load_keras

    keras.utils.set_random_seed(0)
    path = FOLDER / name
    return MODELS[name]() if name in MODELS else load_keras(path, detect_format(path))


@functools.cache
def float_gzip_bytes(name: str) -> int:
    """Return the compressed size of a model's float32 flatbuffer."""
    from pipeline import export

    return export.gzip_size(source_of({"model": name}).flatbuffer())


def source_of(how: dict[str, Any]) -> Any:
    """Return the model of a case, with its data, ready to convert."""
    from pipeline import export
    from pipeline.training.training_data import TrainingData

    name = how.get("model", "keras3.keras")
    model = model_of(name)
    dtype = export.model_tensors(model)[0][0].dtype
    inputs = FOLDER / ("tokens.npy" if name == "tokens.keras" else "x_train.npy")
    labels: Path | None = FOLDER / "y_train.npy"
    if how.get("one_class") or how.get("samples"):
        kept = np.flatnonzero(np.load(FOLDER / "y_train.npy") == 2) if how.get("one_class") else slice(how["samples"])
        np.save(FOLDER / "some_x.npy", np.load(inputs)[kept])
        np.save(FOLDER / "some_y.npy", np.load(FOLDER / "y_train.npy")[kept])
        inputs, labels = FOLDER / "some_x.npy", FOLDER / "some_y.npy"
    labels = None if how.get("unlabelled") or name == "tokens.keras" else labels
    return export.Convertible(model, TrainingData(inputs, labels, 1.0, 0.0, 0, how.get("runtime", "litert"), dtype))


def answer(technique: str, settings: dict[str, Any], how: dict[str, Any]) -> dict[str, Any]:
    """Return what came of one case."""
    from pipeline import compression, export
    from pipeline.building import evidence
    from pipeline.compression._operators import layer_names, named_operators
    from pipeline.errors import EdgepressError

    source, report = source_of(how), KeptReport()
    module = compression.technique(technique)
    validated = module.Settings.model_validate(settings)
    try:
        content = module.convert(source, validated, source.data, report)
        evidence.check_converted(technique, content)
        export.check_parity(source, content)
    except EdgepressError as error:
        return {"error": str(error), "left": report.left}
    operators = named_operators(content, layer_names(source.model))
    inputs = source.data.inputs(source.data.fixed_indices(200))
    labels = source.data.labels
    outputs = export.flatbuffer_outputs(content, inputs)
    (FOLDER / f"{hashlib.sha256(content).hexdigest()}.tflite").write_bytes(content)
    return {
        "sha256": hashlib.sha256(content).hexdigest(),
        "gzip_bytes": export.gzip_size(content),
        "float_gzip_bytes": float_gzip_bytes(how.get("model", "keras3.keras")),
        "weights": {operator.layer: operator.weights_dtype for operator in operators if operator.weights},
        "dtypes": sorted({tensor.dtype for tensor in evidence.flatbuffer_tensors(content)}),
        "ends": [end[0].dtype for end in export.flatbuffer_tensors(content)],
        "snr_db": export.snr_db(source.outputs(inputs), outputs),
        "accuracy": None
        if labels is None
        else float((outputs.argmax(-1) == labels[source.data.fixed_indices(200)]).mean()),
        "indices": module.calibration_indices(validated, source.data),
        "left": report.left,
        "notes": report.notes,
    }


def main() -> None:
    for case in json.loads(Path(sys.argv[2]).read_text()):
        print("answer", json.dumps(answer(*case)), flush=True)


if __name__ == "__main__":
    main()
