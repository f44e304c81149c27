"""Fashion-MNIST: 28x28 grey images of clothing in ten classes, and a small residual network for them.

Data: Xiao, Rasul, Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms",
arXiv:1708.07747. Network: He et al., "Deep Residual Learning for Image Recognition", arXiv:1512.03385, with three
blocks, each of which halves the image.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.datasets.dataset import Collection, DataFile, Dataset
from models.datasets.idx import read_idx
from models.datasets.sources import fetch
from models.training.batches import shuffled_batches, split
from models.training.checkpoints import library_versions, write_checkpoint

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

METRIC = "top1"
CHECKPOINT = Path(__file__).with_suffix(".keras")
EPOCHS = 20

CLASSES = 10
STEM_CHANNELS = 16
BLOCK_CHANNELS = (32, 64, 96)
BATCH = 128
HELD_OUT = 5_000
PEAK_LEARNING_RATE = 0.1
WEIGHT_DECAY = 5e-4
LABEL_SMOOTHING = 0.05

COLLECTION = Collection(
    name="fashion-mnist",
    files=(
        DataFile(
            "train-images-idx3-ubyte.gz",
            47_040_016,
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        ),
        DataFile(
            "train-labels-idx1-ubyte.gz",
            60_008,
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        ),
        DataFile(
            "t10k-images-idx3-ubyte.gz",
            7_840_016,
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        ),
        DataFile(
            "t10k-labels-idx1-ubyte.gz",
            10_008,
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
    ),
    debian_package="dataset-fashion-mnist",
    debian_folder=Path("/usr/share/datasets/fashion-mnist"),
    url="https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
)


def load_data(folder: Path | None, cache: Path, progress: Callable[[str, int, int], None]) -> Dataset:
    """The 60,000 training and 10,000 test images, from the first source that has them.

    Args:
        folder: the only source when given: the four idx files, gzip or not.
        cache: the user's cache folder; verified files are kept under ``datasets/fashion-mnist``.
        progress: called with what is being fetched, bytes done and bytes in all.

    Raises:
        DataUnavailable: a file is missing or damaged in ``folder``, or no other source had it.
    """
    fetched = fetch(COLLECTION, folder, cache, progress)
    x_train, y_train, x_test, y_test = (
        read_idx(fetched.content[file.name], file.unpacked_name) for file in COLLECTION.files
    )
    return Dataset(
        x_train=x_train[..., None],
        y_train=y_train.astype("int64"),
        x_test=x_test[..., None],
        y_test=y_test.astype("int64"),
        scale=1 / 255,
        offset=0.0,
        source=fetched.source,
    )


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


def train(
    dataset: Dataset,
    seed: int,
    epochs: int,
    checkpoint: Path,
    on_epoch: Callable[[int, int, dict[str, float]], None],
) -> dict[str, Any]:
    """Trains from nothing and writes the checkpoint and, beside it, its provenance as ``.json``.

    Run it in a process of its own: it sets the seeds and the determinism of the whole process. On the same machine,
    with the same seed and libraries, the weights are the same to the bit (``weights_sha256``; the checkpoint's own hash
    is not, for it holds the time). Elsewhere sums are rounded in another order, and the accuracy differs a little.

    Args:
        dataset: 5,000 training images (at most a tenth) are held out for validation; the test images are looked at
            once, at the end.
        on_epoch: called with the epoch from 1, ``epochs``, and ``loss``, ``top1``, ``validation_top1``.

    Returns:
        The provenance.
    """
    import keras
    import numpy as np
    import tensorflow as tf

    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()
    rng = np.random.default_rng(seed)
    chosen, held_out = split(len(dataset.x_train), min(HELD_OUT, len(dataset.x_train) // 10), rng)
    batch = min(BATCH, len(chosen))
    model = build()
    _compile(model, steps_per_epoch=len(chosen) // batch, epochs=epochs)
    validation_top1 = 0.0
    for epoch in range(1, epochs + 1):
        figures = _train_epoch(model, dataset, chosen, batch, rng)
        validation_top1 = top1(model, dataset, dataset.x_train[held_out], dataset.y_train[held_out])
        on_epoch(epoch, epochs, figures | {"validation_top1": validation_top1})
    provenance = {
        "command": f"edgepress train fashion_mnist --seed {seed}" + ("" if epochs == EPOCHS else f" --epochs {epochs}"),
        "data_sha256": _data_sha256(dataset),
        "epochs": epochs,
        "libraries": library_versions(),
        "parameters": model.count_params(),
        "seed": seed,
        "test_top1": top1(model, dataset, dataset.x_test, dataset.y_test),
        "validation_top1": validation_top1,
    }
    return write_checkpoint(_without_optimizer(model), checkpoint, provenance)


def _compile(model: Any, steps_per_epoch: int, epochs: int) -> None:
    import keras

    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        decay_steps=steps_per_epoch * (epochs - 1) or 1,
        warmup_target=PEAK_LEARNING_RATE,
        warmup_steps=steps_per_epoch,
    )
    model.compile(
        keras.optimizers.SGD(schedule, momentum=0.9, nesterov=True, weight_decay=WEIGHT_DECAY),
        keras.losses.CategoricalCrossentropy(label_smoothing=LABEL_SMOOTHING),
        metrics=[keras.metrics.CategoricalAccuracy(name="top1")],
        jit_compile=False,  # XLA on a CPU took twice as long to start and was no faster
    )


def _train_epoch(
    model: Any, dataset: Dataset, chosen: NDArray[np.int64], batch: int, rng: np.random.Generator
) -> dict[str, float]:
    """One pass; the means over its batches, each as it was before the weights followed it."""
    import numpy as np

    one_hot = np.eye(CLASSES, dtype=np.float32)
    figures = [
        model.train_on_batch(dataset.model_input(x), one_hot[y], return_dict=True)
        for x, y in shuffled_batches(dataset.x_train[chosen], dataset.y_train[chosen], batch, rng)
    ]
    return {name: float(np.mean([figure[name] for figure in figures])) for name in ("loss", "top1")}


def top1(model: Any, dataset: Dataset, x: NDArray[np.uint8], y: NDArray[np.int64]) -> float:
    """The share of images whose most probable class is the right one, 0..1."""
    probabilities = model.predict(dataset.model_input(x), batch_size=500, verbose=0)
    return float((probabilities.argmax(axis=1) == y).mean())


def _without_optimizer(model: Any) -> Any:
    bare = build()
    bare.set_weights(model.get_weights())
    return bare


def _data_sha256(dataset: Dataset) -> dict[str, str]:
    arrays = {name: getattr(dataset, name) for name in ("x_train", "y_train", "x_test", "y_test")}
    return {name: hashlib.sha256(array.tobytes()).hexdigest() for name, array in arrays.items()}
