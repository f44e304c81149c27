"""Makes models that cannot be used, or not for all: ``python bad_models.py FOLDER``, with real TensorFlow."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from tiny_models import network, samples


def main(folder: Path) -> None:
    """Write the models, and samples whose labels are outside the classes."""
    import keras
    import tf_keras

    _keras(folder, keras, ".keras")
    _keras(folder, tf_keras, ".h5")
    _saved(folder)
    x, y = samples(40, 3)
    np.savez(folder / "train_labels.npz", x_train=x, y_train=y + 1, x_test=x, y_test=y)
    np.savez(folder / "test_labels.npz", x_train=x, y_train=y, x_test=x, y_test=y - 1)


def _keras(folder: Path, library: Any, suffix: str) -> None:
    class Own(library.layers.Layer):  # type: ignore[misc,name-defined]
        def call(self, inputs: Any) -> Any:
            return inputs * 2

    start = library.Input((12, 12, 1))
    doubled = library.layers.Lambda(lambda x: x * 2, name="double")
    for name, layer in (("own", Own(name="shout")), ("code", doubled)):
        library.Sequential([start, layer, library.layers.Flatten()]).save(folder / f"{name}{suffix}")
    model = _with_nan(network(library))
    model.save(folder / f"nan{suffix}")
    if library.__name__ == "keras":
        model.export(folder / "nan_saved", verbose=False)
        layers = [library.layers.Conv2D(4, 3), library.layers.GlobalAveragePooling2D()]
        library.Sequential([library.Input((None, None, 1)), *layers]).save(folder / "open.keras")
    else:
        network(library).save(folder / "keras_saved", save_format="tf")


def _with_nan(model: Any) -> Any:
    weights = model.get_weights()
    weights[0][0, 0, 0, :2] = np.nan
    model.set_weights(weights)
    return model


def _saved(folder: Path) -> None:
    import tensorflow as tf

    module = tf.Module()
    module.weights = tf.Variable(tf.ones([144, 4]))
    specs = {
        "rankless": [tf.TensorSpec(None, name="x")],
        "two_inputs": [tf.TensorSpec([None, 12, 12, 1], name="x"), tf.TensorSpec([None, 1], name="y")],
        "batch_8": [tf.TensorSpec([8, 12, 12, 1], name="x")],
    }
    for name, spec in specs.items():

        @tf.function(input_signature=spec)  # type: ignore[untyped-decorator]
        def call(x: Any, y: Any = 0.0) -> Any:
            return tf.matmul(tf.reshape(x, [-1, 144]), module.weights) + y

        module.call = call
        tf.saved_model.save(module, str(folder / name), signatures={"serving_default": call})
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder / "saved_model"))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([sample[np.newaxis]] for sample in samples(8, 4)[0])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    (folder / "int8.tflite").write_bytes(converter.convert())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
