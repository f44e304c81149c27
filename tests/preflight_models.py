"""Makes flatbuffers that a runtime computes well, wrongly, or dies of: ``python preflight_models.py FOLDER``.

A float32 network of two Dense layers, what TensorFlow and ai-edge-quantizer make of it, beside each the network's own
outputs on the samples that pre-flight draws from ``data.npz``. Only where channels differ widely in scale does it
tell that a runtime takes the first one's scale for all.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

INPUTS, SAMPLES = 32, 80
RECIPES = {"wi8": "dynamic_wi8_afp32", "wi4_blocks": "dynamic_wi4b32_afp32"}


def network() -> Any:
    """Return the network with random weights."""
    import keras

    inputs = keras.Input((INPUTS,))
    outputs = keras.layers.Dense(4)(keras.layers.Dense(64, activation="relu")(inputs))
    model = keras.Model(inputs, outputs)
    random = np.random.default_rng(0)
    for variable in model.variables:
        channels = np.exp(1.5 * random.normal(size=variable.shape[-1]))
        variable.assign(random.normal(size=variable.shape) * channels if len(variable.shape) == 2 else channels)
    return model


def one_at_a_time() -> Any:
    """Return a network with shapes in its flatbuffer that hold for one sample only."""
    import keras

    inputs = keras.Input((INPUTS,))
    x = keras.layers.Conv1D(4, 3)(keras.layers.Reshape((8, INPUTS // 8))(inputs))
    return keras.Model(inputs, keras.layers.GlobalAveragePooling1D()(x))


def main(folder: Path) -> None:
    """Write ``data.npz``, and for each flatbuffer a folder with ``model.tflite`` and what the network answers."""
    import tensorflow as tf
    from ai_edge_quantizer import quantizer, recipe

    from pipeline.building.evidence import HostScore
    from pipeline.export import Convertible
    from pipeline.training.training_data import TrainingData

    random = np.random.default_rng(1)
    x_test, y_test = random.random((SAMPLES, INPUTS), np.float32), random.integers(0, 4, SAMPLES)
    np.savez(folder / "data.npz", x_test=x_test, y_test=y_test, x_train=x_test, y_train=y_test)
    np.save(folder / "x_test.npy", x_test)
    data = TrainingData(folder / "x_test.npy", None, 1.0, 0.0, 0, "litert")
    source = Convertible(network(), data)

    def per_channel(converter: Any) -> None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]

    made = {"float32": source.flatbuffer(), "version_12": source.flatbuffer(per_channel)}
    (folder / "float32.tflite").write_bytes(made["float32"])
    for name, recipe_name in RECIPES.items():
        quantizing = quantizer.Quantizer(str(folder / "float32.tflite"), getattr(recipe, recipe_name)())
        made[name] = bytes(quantizing.quantize().quantized_model)
    made["fixed"] = Convertible(one_at_a_time(), data).flatbuffer()
    for name, content in made.items():
        (folder / name).mkdir()
        (folder / name / "model.tflite").write_bytes(content)
        HostScore(data, "top1", folder / name / "reference.npy").write_expected(source.outputs)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
