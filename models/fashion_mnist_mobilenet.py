"""Fashion-MNIST with the MobileNetV1 of width 0.25 that MLPerf Tiny wakes a camera with: Banbury et al., "MLPerf Tiny
Benchmark", arXiv:2106.07597. The first convolution keeps the size, since the images are 28x28 and not 96x96.
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
EPOCHS = 12

STEM_CHANNELS = 8
# Channels and stride of each depthwise separable block: a quarter of Howard et al., "MobileNets", arXiv:1704.04861.
BLOCKS = (
    (16, 1),
    (32, 2),
    (32, 1),
    (64, 2),
    (64, 1),
    (128, 2),
    (128, 1),
    (128, 1),
    (128, 1),
    (128, 1),
    (128, 1),
    (256, 2),
    (256, 1),
)


def build() -> Any:
    """The network, untrained: Keras 3, float32 [n, 28, 28, 1] in 0..1 to softmax [n, 10]."""
    import keras

    images = keras.Input((28, 28, 1), name="image")
    x = keras.layers.Conv2D(STEM_CHANNELS, 3, padding="same", use_bias=False, name="stem")(images)
    x = _normalized(x, "stem")
    for number, (channels, stride) in enumerate(BLOCKS, start=1):
        x = _block(x, channels, stride, f"block{number}")
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    probabilities = keras.layers.Dense(CLASSES, activation="softmax", name="classes")(x)
    return keras.Model(images, probabilities, name="fashion_mnist_mobilenet")


def _block(x: Any, channels: int, stride: int, name: str) -> Any:
    from keras import layers

    x = layers.DepthwiseConv2D(3, strides=stride, padding="same", use_bias=False, name=f"{name}_depthwise")(x)
    x = _normalized(x, f"{name}_depthwise")
    x = layers.Conv2D(channels, 1, padding="same", use_bias=False, name=f"{name}_pointwise")(x)
    return _normalized(x, f"{name}_pointwise")


def _normalized(x: Any, name: str) -> Any:
    from keras import layers

    x = layers.BatchNormalization(momentum=0.9, name=f"{name}_norm")(x)
    return layers.ReLU(name=f"{name}_relu")(x)


train = partial(train_classifier, Classifier("fashion_mnist_mobilenet", build, EPOCHS))
