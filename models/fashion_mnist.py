"""Fashion-MNIST with a small residual network: He et al., "Deep Residual Learning for Image Recognition",
arXiv:1512.03385, with three blocks, each of which halves the image.
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
EPOCHS = 20

STEM_CHANNELS = 16
BLOCK_CHANNELS = (32, 64, 96)


def build() -> Any:
    """The network, untrained: Keras 3, float32 [n, 28, 28, 1] in 0..1 to softmax [n, 10]."""
    import keras

    images = keras.Input((28, 28, 1), name="image")
    x = keras.layers.ReLU(name="stem_relu")(_convolution(images, STEM_CHANNELS, 3, 1, "stem"))
    for number, channels in enumerate(BLOCK_CHANNELS, start=1):
        x = _residual_block(x, channels, f"block{number}")
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    probabilities = keras.layers.Dense(CLASSES, activation="softmax", name="classes")(x)
    return keras.Model(images, probabilities, name="fashion_mnist")


def _residual_block(x: Any, channels: int, name: str) -> Any:
    from keras import layers

    y = layers.ReLU(name=f"{name}_relu1")(_convolution(x, channels, 3, 2, f"{name}_conv1"))
    y = _convolution(y, channels, 3, 1, f"{name}_conv2")
    shortcut = _convolution(x, channels, 1, 2, f"{name}_shortcut")
    return layers.ReLU(name=f"{name}_relu2")(layers.Add(name=f"{name}_add")([y, shortcut]))


def _convolution(x: Any, channels: int, kernel: int, stride: int, name: str) -> Any:
    from keras import layers

    x = layers.Conv2D(channels, kernel, strides=stride, padding="same", use_bias=False, name=name)(x)
    # Keras's default momentum of 0.99 follows too slowly for the few steps that fine-tuning after pruning takes.
    return layers.BatchNormalization(momentum=0.9, name=f"{name}_norm")(x)


train = partial(train_classifier, Classifier("fashion_mnist", build, EPOCHS))
