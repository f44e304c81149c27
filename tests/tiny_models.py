"""Makes tiny models and samples that the tests compress: ``python tiny_models.py FOLDER``, with real TensorFlow.

The samples are two bright quadrants to be told apart, so that a few steps of training reach a real accuracy.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

CLASSES = 4


def samples(count: int, seed: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return images [count, 12, 12, 1] with one bright quadrant each, and which one it is."""
    random = np.random.default_rng(seed)
    x = random.random((count, 12, 12, 1), dtype=np.float32) * 0.5
    y = random.integers(0, CLASSES, count)
    for image, quadrant in zip(x, y, strict=True):
        row, column = 6 * (quadrant // 2), 6 * (quadrant % 2)
        image[row : row + 6, column : column + 6] += 0.2
    return x, y


def network(keras: Any) -> Any:
    """Return the same little residual network in Keras 3 or in tf_keras."""
    layers = keras.layers
    inputs = keras.Input((12, 12, 1))
    x = layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False)(inputs)
    x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    y = layers.Conv2D(8, 3, padding="same")(x)
    x = layers.Add()([x, y])
    outputs = layers.Dense(CLASSES, activation="softmax")(layers.Flatten()(x))
    return keras.Model(inputs, outputs)


def main(folder: Path) -> None:
    """Write one model in each format, and the samples."""
    import keras
    import tensorflow as tf
    import tf_keras

    x, y = samples(600, 0)
    x_test, y_test = samples(300, 1)
    np.savez(folder / "data.npz", x_train=x, y_train=y, x_test=x_test, y_test=y_test)
    np.savez(folder / "test_only.npz", x_test=x_test, y_test=y_test)
    for library, names in ((keras, ("keras3.keras",)), (tf_keras, ("keras2.h5",))):
        library.utils.set_random_seed(0)
        model = network(library)
        model.compile("adam", "sparse_categorical_crossentropy")
        model.fit(x, y, epochs=4, batch_size=32, verbose=0)
        for name in names:
            model.save(folder / name)
        if library is keras:
            model.export(folder / "saved_model", verbose=False)
    tokens = keras.Input((5,), dtype="int32")
    embedded = keras.layers.GlobalAveragePooling1D()(keras.layers.Embedding(10, 4)(tokens))
    keras.Model(tokens, keras.layers.Dense(CLASSES)(embedded)).save(folder / "tokens.keras")
    words = np.random.default_rng(2).integers(0, 10, (200, 5))
    np.savez(folder / "tokens.npz", x_test=words, y_test=words[:, :1] % CLASSES)
    marker = str(folder / "code_was_run")
    # A Lambda with code that leaves a trace when it is run.
    doubled = tf_keras.layers.Lambda(lambda x: (open(marker, "w").close(), x * 2)[1])  # noqa: PTH123
    tf_keras.Sequential([tf_keras.Input((12, 12, 1)), doubled]).save(folder / "lambda.h5")
    Path(marker).unlink()
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder / "saved_model"))
    (folder / "ready.tflite").write_bytes(converter.convert())
    # Its Dense layer has a scale for each channel: FULLY_CONNECTED version 12, which tflite-runtime 2.14 does not know.
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    (folder / "too_new.tflite").write_bytes(converter.convert())
    # Integers at both ends: what it is given has to be quantized for it.
    converter.representative_dataset = lambda: ([sample[np.newaxis]] for sample in x[:100])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    (folder / "ready_int8.tflite").write_bytes(converter.convert())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
