"""The nouns of data: the files a task is made of, the samples it hands out, and the error when they cannot be had."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class DataUnavailable(Exception):
    """No source had the data; the message lists every source that was tried and why it failed."""


class SourceFailed(Exception):
    """One source does not have what is asked of it; the message says why, and the next source is tried."""


@dataclass(frozen=True)
class DataFile:
    """One published file, known by what is in it.

    Attributes:
        name: as published; when it ends in ``.gz``, the file may also be found unpacked, without that ending.
        size_bytes: of the content, unpacked.
        sha256: of the content, unpacked: publishers pack the same bytes differently.
    """

    name: str
    size_bytes: int
    sha256: str

    @property
    def unpacked_name(self) -> str:
        """The name without ``.gz``."""
        return self.name.removesuffix(".gz")


@dataclass(frozen=True)
class Collection:
    """Files that belong together, and where they are published.

    Attributes:
        name: of the folder in the cache.
        files: all of them.
        debian_package: the Debian package that carries them.
        debian_folder: where that package puts them, absolute.
        url: what a file's name is appended to, ending in a slash.
    """

    name: str
    files: tuple[DataFile, ...]
    debian_package: str
    debian_folder: Path
    url: str


@dataclass(frozen=True)
class Dataset:
    """Labelled samples, split as their publisher split them.

    Attributes:
        x_train: uint8, [n, height, width, channels].
        y_train: int64, [n], class indices.
        x_test: as ``x_train``.
        y_test: as ``y_train``.
        scale: the model is given ``x * scale + offset`` as float32.
        offset: see ``scale``.
        source: where the files came from, for people to read.
    """

    x_train: NDArray[np.uint8]
    y_train: NDArray[np.int64]
    x_test: NDArray[np.uint8]
    y_test: NDArray[np.int64]
    scale: float
    offset: float
    source: str

    def model_input(self, x: NDArray[np.uint8]) -> NDArray[np.float32]:
        """``x`` as the model is given it: float32, of the same shape."""
        import numpy as np

        scaled: NDArray[Any] = x.astype(np.float32) * np.float32(self.scale) + np.float32(self.offset)
        return scaled.astype(np.float32, copy=False)
