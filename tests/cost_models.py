"""Makes one flatbuffer a kind of layer, to count by hand what it costs: ``python cost_models.py FOLDER``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any


def layers(keras: Any) -> dict[str, tuple[tuple[int, ...], Any]]:
    """Return each kind of layer with the shape of one sample."""
    make = keras.layers
    return {
        "conv": ((8, 8, 3), make.Conv2D(4, 3, strides=2, padding="same")),
        "dilated": ((8, 8, 3), make.Conv2D(4, 3, dilation_rate=2)),
        "grouped": ((8, 8, 4), make.Conv2D(6, 3, groups=2)),
        "depthwise": ((8, 8, 3), make.DepthwiseConv2D(3, depth_multiplier=2)),
        "separable": ((8, 8, 3), make.SeparableConv2D(5, 3)),
        "transposed": ((4, 4, 3), make.Conv2DTranspose(5, 3, strides=2, padding="same")),
        "conv1d": ((10, 3), make.Conv1D(4, 3)),
        "conv3d": ((4, 4, 4, 2), make.Conv3D(3, 2)),
        # The converter drops a bias of zeros.
        "dense": ((7,), make.Dense(5, bias_initializer="ones")),
        "dense_3d": ((6, 7), make.Dense(5, bias_initializer="ones")),
        "attention": ((6, 8), Attention(make)),
        "lstm": ((6, 3), make.LSTM(4)),
        "lstm_unrolled": ((6, 3), make.LSTM(4, unroll=True)),
        "gru": ((6, 3), make.GRU(4)),
        "gru_unrolled": ((6, 3), make.GRU(4, unroll=True)),
    }


class Attention:
    """Self-attention of two heads of 4."""

    def __init__(self, make: Any) -> None:
        self._layer = make.MultiHeadAttention(2, 4)

    def __call__(self, x: Any) -> Any:
        return self._layer(x, x)


def converter(keras: Any, shape: tuple[int, ...], layer: Any) -> Any:
    """Return a converter of a model of one layer."""
    import tensorflow as tf

    inputs = keras.Input(shape)
    model = keras.Model(inputs, layer(inputs))
    holder = tf.Module()
    holder.variables_of_model = [variable.value for variable in model.variables]
    function = tf.function(lambda x: model(x, training=False))
    concrete = function.get_concrete_function(tf.TensorSpec((1, *shape), tf.float32))
    return tf.lite.TFLiteConverter.from_concrete_functions([concrete], holder)


def in_integers(float_converter: Any, shape: tuple[int, ...]) -> Any:
    """Return the converter set up for int8 throughout."""
    import numpy as np
    import tensorflow as tf

    samples = np.random.default_rng(0).random((8, 1, *shape), np.float32)
    float_converter.optimizations = [tf.lite.Optimize.DEFAULT]
    float_converter.representative_dataset = lambda: ([sample] for sample in samples)
    float_converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    return float_converter


def fused_lstm() -> bytes:
    """Return what the converter makes of an LSTM of tf_keras, with a batch of 1 in the model itself."""
    import tensorflow as tf
    import tf_keras

    inputs = tf_keras.Input((6, 3), batch_size=1)
    model = tf_keras.Model(inputs, tf_keras.layers.LSTM(4)(inputs))
    content: bytes = tf.lite.TFLiteConverter.from_keras_model(model).convert()
    return content


def main(folder: Path) -> None:
    """Write the flatbuffers, and the convolution in integers as well."""
    import keras

    for name, (shape, layer) in layers(keras).items():
        (folder / f"{name}.tflite").write_bytes(converter(keras, shape, layer).convert())
    (folder / "lstm_fused.tflite").write_bytes(fused_lstm())
    shape, layer = layers(keras)["conv"]
    (folder / "conv_int8.tflite").write_bytes(in_integers(converter(keras, shape, layer), shape).convert())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
