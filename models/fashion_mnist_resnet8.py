"""Fashion-MNIST with the ResNet-8 of MLPerf Tiny's image classification: Banbury et al., "MLPerf Tiny Benchmark",
arXiv:2106.07597, on 28x28 grey images instead of 32x32 coloured ones.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from models.datasets.fashion_mnist import CLASSES, load_data
from models.training.classification import Classifier, top1
from models.training.classification import train as train_classifier

__all__ = ["CHECKPOINT", "EPOCHS", "METRIC", "build", "load_data", "top1", "train"]

METRIC = "top1"
CHECKPOINT = Path(__file__).with_suffix(".keras")
EPOCHS = 8

STACK_CHANNELS = (16, 32, 64)


def build() -> Any:
    """The network, untrained: Keras 3, float32 [n, 28, 28, 1] in 0..1 to softmax [n, 10]."""
    import keras

    images = keras.Input((28, 28, 1), name="image")
    x = keras.layers.ReLU(name="stem_relu")(_convolution(images, STACK_CHANNELS[0], 3, 1, "stem"))
    for number, channels in enumerate(STACK_CHANNELS, start=1):
        x = _stack(x, channels, 1 if number == 1 else 2, f"stack{number}")
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    probabilities = keras.layers.Dense(CLASSES, activation="softmax", name="classes")(x)
    return keras.Model(images, probabilities, name="fashion_mnist_resnet8")


def _stack(x: Any, channels: int, stride: int, name: str) -> Any:
    from keras import layers

    y = layers.ReLU(name=f"{name}_relu1")(_convolution(x, channels, 3, stride, f"{name}_conv1"))
    y = _convolution(y, channels, 3, 1, f"{name}_conv2")
    if stride > 1:
        x = layers.Conv2D(channels, 1, strides=stride, padding="same", name=f"{name}_shortcut")(x)
    return layers.ReLU(name=f"{name}_relu2")(layers.Add(name=f"{name}_add")([x, y]))


def _convolution(x: Any, channels: int, kernel: int, stride: int, name: str) -> Any:
    from keras import layers

    x = layers.Conv2D(channels, kernel, strides=stride, padding="same", name=name)(x)
    return layers.BatchNormalization(momentum=0.9, name=f"{name}_norm")(x)


train = partial(train_classifier, Classifier("fashion_mnist_resnet8", build, EPOCHS))
