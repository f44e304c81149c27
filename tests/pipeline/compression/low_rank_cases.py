"""Decomposes tiny models and prints what came of it as JSON: ``python low_rank_cases.py FOLDER [sha256]``."""

import itertools
import json
import sys
from pathlib import Path

import tf_keras
from tiny_models import network
from training_child import Notes, digest, largest_difference, message_of, training_data

from pipeline.building.step_worker import be_deterministic
from pipeline.compression import low_rank
from pipeline.compression._factors import factors
from pipeline.compression._layer_graph import layers_of

layers = tf_keras.layers


def whole(model, scheme):
    """Every Dense and Conv2D at its full rank: the product of the factors is the kernel."""
    found = {}
    for path, layer in layers_of(model):
        if type(layer) in (layers.Dense, layers.Conv2D):
            kernel = factors(layer.get_weights()[0], scheme)
            found[path] = low_rank.Split("_basis", len(kernel.values), kernel)
    return low_rank.decomposed(model, found)


def convolutions():
    found = {}
    for padding, strides, dilation, size, scheme in itertools.product(
        ("same", "valid"), ((1, 1), (2, 2), (2, 1)), ((1, 1), (1, 2)), ((3, 3), (5, 2), (1, 1)), ("channel", "spatial")
    ):
        if max(strides) > 1 and max(dilation) > 1:
            continue  # Keras has no such convolution
        options = {"strides": strides, "padding": padding, "dilation_rate": dilation, "activation": "relu"}
        convolution = layers.Conv2D(5, size, bias_initializer="normal", use_bias=padding == "same", **options)
        model = tf_keras.Sequential([tf_keras.Input((13, 12, 3)), convolution])
        found[f"{scheme} {size} {padding} {strides} {dilation}"] = largest_difference(
            model, whole(model, scheme), (13, 12, 3)
        )
    return found


def shared_and_nested():
    inner = tf_keras.Sequential([tf_keras.Input((8, 8, 3)), layers.Conv2D(4, 3, name="c")], name="inner")
    inputs = [tf_keras.Input((8, 8, 3)) for _ in range(2)]
    shared = layers.Dense(6, activation="tanh", name="shared/one")
    x, y = (shared(inner(tensor)) for tensor in inputs)
    return tf_keras.Model(
        inputs, [layers.Dense(3, name="d")(layers.Add(name="add")([x, y]) * 2 + 1), shared(inner(inputs[1]))]
    )


def other_layers():
    inputs = tf_keras.Input((8, 8, 4))
    x = layers.Conv2D(8, 3, groups=2, name="grouped")(inputs)
    x = layers.BatchNormalization()(layers.DepthwiseConv2D(3, name="depthwise")(x))
    x = layers.Conv2D(8, 3, kernel_constraint="max_norm", name="bound")(x)
    x = layers.Reshape((4, 8))(x)
    x = layers.LSTM(4, name="lstm")(layers.MultiHeadAttention(2, 4, name="attend")(x, x))
    x = layers.Dense(32, name="big")(x)
    return tf_keras.Model(inputs, layers.Dense(2, name="last")(layers.Dense(32, name="square")(x)))


def regularized():
    options = {"kernel_regularizer": "l2", "bias_regularizer": "l1", "activity_regularizer": "l2"}
    dense = layers.Dense(20, "relu", kernel_initializer="he_normal", name="d", trainable=False, **options)
    return tf_keras.Sequential([tf_keras.Input((30,)), dense])


def kept_settings():
    after = whole(regularized(), "channel")
    first, second = after.layers
    return {
        "activations": [layer.activation.__name__ for layer in after.layers],
        "biases": [layer.use_bias for layer in after.layers],
        "kernel_regularizers": [layer.kernel_regularizer is not None for layer in after.layers],
        "bias_regularizers": [layer.bias_regularizer is not None for layer in after.layers],
        "activity_regularizers": [layer.activity_regularizer is not None for layer in after.layers],
        "trainable": [first.trainable, second.trainable],
    }


def planned(model, **asked):
    splits, left = low_rank.plan(model, low_rank.Settings(**asked))
    full = sum(split.factors.full for split in splits.values())
    return {
        "ranks": {path: split.rank for path, split in splits.items()},
        "energies": [split.factors.energy(split.rank) for split in splits.values()],
        "one_less": [split.factors.energy(split.rank - 1) for split in splits.values()],
        "share": sum(split.factors.parameters(split.rank) for split in splits.values()) / full,
        "left": [f"{layer.layer}: {layer.reason}" for layer in left],
        "parameters": [model.count_params(), low_rank.decomposed(model, splits).count_params()],
        "saved": full - sum(split.factors.parameters(split.rank) for split in splits.values()),
    }


def twice(model):
    settings = low_rank.Settings(rank=4)
    once = low_rank.decomposed(model, low_rank.plan(model, settings)[0])
    again = low_rank.decomposed(once, low_rank.plan(once, low_rank.Settings(rank=1, include=["d*"]))[0])
    return [layer.name for layer in again.layers]


class Subclassed(tf_keras.Model):
    def call(self, inputs):
        return inputs


def refused():
    dense = tf_keras.Sequential([tf_keras.Input((6,)), layers.Dense(2, name="d")])
    cases = {
        "no gain": (dense, {"rank": 2}),
        "size": (dense, {"size": 0.1}),
        "none": (tf_keras.Sequential([tf_keras.Input((6,)), layers.ReLU()]), {"rank": 1}),
        "subclassed": (Subclassed(name="own"), {"rank": 1}),
    }
    return {
        name: message_of(lambda model=model, asked=asked: low_rank.untreated(model, low_rank.Settings(**asked)))
        for name, (model, asked) in cases.items()
    }


def trained(folder):
    be_deterministic(5)
    data, report = training_data(folder), Notes()
    settings = low_rank.Settings(size=0.5, epochs=1, batch_size=32, convolution="spatial")
    model = low_rank.rewrite(network(tf_keras), settings, data, report)
    return {"sha256": digest(model, data), "notes": report.notes}


def untrained(folder):
    data = training_data(folder, labels=False)
    model = network(tf_keras)
    exact = low_rank.rewrite(model, low_rank.Settings(rank=1, epochs=0, include=["dense*"]), data, Notes())
    needed = low_rank.Settings(rank=1)
    return {
        "layers": len(exact.layers) - len(model.layers),
        "message": message_of(lambda: low_rank.rewrite(model, needed, data, Notes())),
    }


def main(folder):
    # First: layers are named by how many there were before, and the names stand in the flatbuffer.
    found = trained(folder)
    tf_keras.utils.set_random_seed(1)
    shared = shared_and_nested()
    split = whole(shared, "channel")
    deep = tf_keras.Sequential(
        [tf_keras.Input((24,)), layers.Dense(30, name="d1"), layers.Dense(40, name="d2"), layers.Dense(3, name="d3")]
    )
    found |= {
        "convolutions": convolutions(),
        "shared": largest_difference(shared, split, (8, 8, 3)),
        "shared_layers": [path for path, _ in layers_of(split)],
        "settings": kept_settings(),
        "other": planned(other_layers(), rank=1, exclude=["square"]),
        "none": planned(network(tf_keras), rank=1, convolution="none"),
        "energy": planned(deep, energy=0.7),
        "size": planned(deep, size=0.4),
        "twice": twice(deep),
        "refused": refused(),
        "untrained": untrained(folder),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    place = Path(sys.argv[1])
    print(json.dumps(trained(place))) if sys.argv[2:] else main(place)
