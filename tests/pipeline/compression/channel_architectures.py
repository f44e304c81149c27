"""Removes random channels from many little networks: ``python channel_architectures.py``, with real TensorFlow.

Prints for each as JSON how far the smaller network's outputs are from those of the whole one that does not read what
was removed, what was removed and what was left, and the MACs as counted on Keras layers and on the flatbuffer.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras
from tf_keras import layers

from pipeline.building.evidence import named_weights
from pipeline.compression._channel_graph import read_channels
from pipeline.compression._channels import Channels
from pipeline.compression._slicing import with_channels_unread, without_channels
from pipeline.flatbuffer import costs
from pipeline.flatbuffer.graph import read_model

SEEDS = (0, 1)


def image(size: int = 8, channels: int = 3) -> Any:
    return tf_keras.Input((size, size, channels))


def conv(x: Any, filters: int, name: str, **more: Any) -> Any:
    return layers.Conv2D(filters, 3, padding="same", name=name, **more)(x)


def normed(x: Any) -> Any:
    return layers.ReLU()(layers.BatchNormalization()(x))


def head(x: Any, name: str = "head") -> Any:
    return layers.Dense(4, activation="softmax", name=name)(layers.GlobalAveragePooling2D()(x))


def chain() -> Any:
    first = [image(), layers.Conv2D(9, 3, activation="relu", name="a"), layers.MaxPooling2D()]
    middle = [layers.Conv2D(7, 1, name="b"), layers.PReLU(), layers.Flatten(), layers.Dense(11, "tanh", name="c")]
    return tf_keras.Sequential([*first, *middle, layers.Dropout(0.5), layers.Dense(4, name="head"), layers.Softmax()])


def residual() -> Any:
    inputs = image()
    x = normed(conv(inputs, 8, "a"))
    y = conv(normed(conv(x, 6, "b")), 8, "c")
    x = layers.ReLU()(layers.Add()([x, layers.BatchNormalization()(y)]))
    y = layers.BatchNormalization()(conv(x, 10, "d", strides=2))
    shortcut = layers.Conv2D(10, 1, strides=2, name="projection")(x)
    return tf_keras.Model(inputs, head(layers.Add()([y, shortcut])))


def dense_net() -> Any:
    inputs = image()
    x = conv(inputs, 6, "a")
    for name in "bcd":
        x = layers.Concatenate()([x, conv(normed(x), 5, name)])
    return tf_keras.Model(inputs, head(normed(x)))


def depthwise() -> Any:
    inputs = image()
    x = normed(conv(inputs, 8, "a", use_bias=False))
    x = normed(layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2, name="depthwise")(x))
    x = normed(layers.Conv2D(12, 1, use_bias=False, name="b")(x))
    return tf_keras.Model(inputs, head(normed(layers.DepthwiseConv2D(3, use_bias=False)(x))))


def two_heads() -> Any:
    inputs = image()
    x = normed(conv(inputs, 8, "trunk"))
    return tf_keras.Model(inputs, [head(conv(x, 6, "a"), "one"), layers.Dense(3, name="two")(layers.Flatten()(x))])


def squeeze_excite() -> Any:
    inputs = image()
    x = normed(conv(inputs, 8, "a"))
    s = layers.Reshape((1, 1, 8))(layers.GlobalAveragePooling2D()(x))
    s = layers.Conv2D(8, 1, activation="sigmoid", name="excite")(layers.Conv2D(5, 1, activation="relu", name="s")(s))
    gate = layers.Conv2D(1, 1, activation="sigmoid", name="one_channel")(x)
    return tf_keras.Model(inputs, head(layers.Multiply()([layers.Multiply()([x, s]), gate])))


def separable() -> Any:
    inputs = image()
    x = normed(layers.SeparableConv2D(9, 3, depth_multiplier=2, name="a")(inputs))
    return tf_keras.Model(inputs, head(layers.SeparableConv2D(7, 3, depth_multiplier=2, name="b")(x)))


def one_dimension() -> Any:
    inputs = tf_keras.Input((16, 3))
    x = layers.Conv1D(8, 3, padding="causal", activation="gelu", name="a")(inputs)
    x = layers.ZeroPadding1D(1)(layers.SeparableConv1D(7, 3, name="b")(x))
    x = layers.DepthwiseConv1D(3, name="depthwise")(layers.MaxPooling1D()(x))
    x = layers.Conv1DTranspose(6, 3, name="c")(layers.UpSampling1D(2)(x))
    return tf_keras.Model(inputs, layers.Dense(4, name="head")(layers.GlobalMaxPooling1D()(x)))


def three_dimensions() -> Any:
    inputs = tf_keras.Input((6, 6, 6, 2))
    x = layers.Conv3D(6, 3, padding="same", activation="relu", name="a")(inputs)
    x = layers.GlobalAveragePooling3D()(layers.Conv3D(5, 2, name="b")(x))
    return tf_keras.Model(inputs, layers.Dense(4, name="head")(x))


def three_dimensions_transposed() -> Any:
    inputs = tf_keras.Input((4, 4, 4, 2))
    x = layers.Conv3DTranspose(6, 2, strides=2, activation="relu", name="a")(inputs)
    return tf_keras.Model(inputs, layers.Dense(4, name="head")(layers.Flatten()(layers.MaxPooling3D()(x))))


def transposed() -> Any:
    inputs = image()
    x = conv(inputs, 8, "a", strides=2, activation="relu")
    x = layers.Cropping2D(1)(layers.Conv2DTranspose(9, 3, strides=2, padding="same", activation="relu", name="b")(x))
    return tf_keras.Model(inputs, layers.Conv2D(2, 1, name="head")(x))


def generator() -> Any:
    inputs = tf_keras.Input((10,))
    x = layers.Dense(4 * 4 * 6, activation="relu", name="a")(inputs)
    x = layers.Conv2DTranspose(8, 3, strides=2, activation="elu", name="b")(layers.Reshape((4, 4, 6))(x))
    return tf_keras.Model(inputs, layers.Conv2D(1, 3, activation="tanh", name="head")(x))


def dense_only() -> Any:
    inputs = tf_keras.Input((10,))
    x = layers.LeakyReLU()(layers.Dense(12, name="a")(inputs))
    x = layers.Concatenate()([x, layers.Dense(7, activation="swish", name="b")(x), inputs])
    x = layers.Maximum()([layers.Dense(9, name="c")(x), layers.Dense(9, name="d")(x)])
    return tf_keras.Model(inputs, layers.Dense(3, name="head")(layers.RepeatVector(4)(x)))


def recurrent() -> Any:
    inputs = tf_keras.Input((8, 3))
    x = layers.Conv1D(8, 3, padding="same", name="a")(inputs)
    return tf_keras.Model(inputs, layers.Dense(4, name="head")(layers.LSTM(5)(x)))


def recurrent_loop() -> Any:
    inputs = tf_keras.Input((8, 3))
    x = layers.SimpleRNN(5, return_sequences=True)(layers.Conv1D(8, 3, name="a")(inputs))
    return tf_keras.Model(inputs, layers.Dense(4, name="head")(layers.GRU(6)(layers.Conv1D(7, 3, name="b")(x))))


def shared() -> Any:
    inputs = image()
    twice, x = layers.Conv2D(8, 3, padding="same", name="shared"), conv(inputs, 8, "a")
    x = layers.Concatenate(axis=1)([twice(layers.ReLU()(twice(x))), conv(inputs, 8, "b")])
    return tf_keras.Model(inputs, head(x))


class Doubled(layers.Layer):
    """A layer that nobody knows."""

    def call(self, inputs: Any) -> Any:
        return inputs * 2


def kept_where_unknown() -> Any:
    inputs = image()
    x = Doubled(name="unknown")(conv(inputs, 8, "to_unknown"))
    x = layers.LayerNormalization(name="mixing")(conv(x, 8, "to_mixing"))
    x = layers.Conv2D(8, 3, groups=2, name="grouped")(conv(x, 8, "to_grouped"))
    x = layers.Permute((3, 1, 2), name="moved")(conv(x, 6, "to_permute"))
    x = layers.Conv2D(6, 1, activation="softmax", name="mixing_activation")(x)
    small = tf_keras.Sequential([tf_keras.Input((None, None, 6)), layers.Conv2D(6, 1)], name="nested")
    return tf_keras.Model(inputs, head(conv(small(conv(x, 6, "to_nested")), 9, "free")))


ARCHITECTURES: tuple[Callable[[], Any], ...] = (
    chain, residual, dense_net, depthwise, two_heads, squeeze_excite, separable, one_dimension, three_dimensions,
    three_dimensions_transposed, transposed, generator, dense_only, recurrent, recurrent_loop, shared,
    kept_where_unknown,
)  # fmt: skip
NOT_COUNTED = {
    "three_dimensions_transposed": "TensorFlow Lite has no such operator among its own",
    "recurrent_loop": "a flatbuffer's loop does not tell how often it runs",
    "kept_where_unknown": "layers that are not understood count nothing",
}


def randomize(model: Any, random: np.random.Generator) -> None:
    """Give every weight a value that matters: biases, β and moving means are zero in a new network."""
    for variable in model.weights:
        values = random.normal(0, 0.4, variable.shape)
        variable.assign(np.abs(values) + 0.5 if "variance" in variable.name else values)


def without_half(channels: Channels, random: np.random.Generator) -> Any:
    kept = channels.all_kept()
    for group in channels.groups:
        kept[random.permutation(group)[: random.integers(1, len(group))]] = False
    return kept


def largest_difference(first: Any, second: Any, inputs: Any) -> float:
    pairs = zip(tf.nest.flatten(first(inputs)), tf.nest.flatten(second(inputs)), strict=True)
    return max(float(np.abs(a.numpy() - b.numpy()).max()) for a, b in pairs)


def flatbuffer_macs(model: Any) -> int:
    spec = tf.TensorSpec((1, *model.inputs[0].shape[1:]))
    function = tf.function(lambda x: model(x, training=False)).get_concrete_function(spec)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], model)
    return costs.macs(read_model(converter.convert()))


def examine(build: Callable[[], Any]) -> dict[str, Any]:
    model = build()
    facts: dict[str, Any] = {"difference": 0.0, "before": filters_of(model), "seeds": []}
    for seed in SEEDS:
        random = np.random.default_rng(seed)
        randomize(model, random)
        channels = read_channels(model)
        kept = without_half(channels, random)
        inputs = random.normal(size=(4, *model.inputs[0].shape[1:])).astype(np.float32)
        smaller = without_channels(model, channels, kept)
        unread = with_channels_unread(model, channels, kept)
        facts["difference"] = max(facts["difference"], largest_difference(smaller, unread, inputs))
        facts["changed"] = largest_difference(smaller, model, inputs)
        macs = {"counted": channels.macs(kept), "recounted": (again := read_channels(smaller)).macs(again.all_kept())}
        facts["seeds"].append({"filters": filters_of(smaller), **macs})
    facts["parameters"] = [sum(values.size for _, values in named_weights(each)) for each in (model, smaller)]
    facts["left"] = {left.layer: left.reason for left in channels.left()}
    if build.__name__ not in NOT_COUNTED:
        facts["flatbuffer_macs"] = flatbuffer_macs(smaller)
    return facts


def filters_of(model: Any) -> dict[str, int]:
    counted = ((layer.name, getattr(layer, "filters", getattr(layer, "units", None))) for layer in model.layers)
    return {name: count for name, count in counted if count}


if __name__ == "__main__":
    print(json.dumps({build.__name__: examine(build) for build in ARCHITECTURES}))
