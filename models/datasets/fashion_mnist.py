"""Fashion-MNIST: 28x28 grey images of clothing in ten classes.

Xiao, Rasul, Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms",
arXiv:1708.07747.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from models.datasets.dataset import Collection, DataFile, Dataset
from models.datasets.idx import read_idx
from models.datasets.sources import fetch

CLASSES = 10

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
