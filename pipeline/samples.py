"""The samples of an experiment: fetched, checked, and laid out as ``.npy`` files that children map into memory."""

from __future__ import annotations

import hashlib
import importlib
import os
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from pipeline.cache import Cache
from pipeline.config import Experiment
from pipeline.errors import DataError

Array = npt.NDArray[Any]
FetchProgress = Callable[[str, int, int], None]

CALIBRATION_POOL = 500
"""How many test samples are set aside for calibration when there are no training samples."""


@dataclass(frozen=True)
class Samples:
    """Four ``.npy`` files by content, and how an input becomes what the model takes: ``x * scale + offset``.

    ``x_train`` is what may be trained on and calibrated with; ``y_train`` is None when there are no training samples
    and ``x_train`` is a part of the test set that was set aside and is not scored. ``source`` says where they came
    from, in words for the report.
    """

    x_train: Path
    y_train: Path | None
    x_test: Path
    y_test: Path
    scale: float
    offset: float
    source: str

    @property
    def training_sha256(self) -> tuple[str, ...]:
        """The hashes of what a compression step may look at: the files are named by their content."""
        return tuple("" if path is None else path.stem for path in (self.x_train, self.y_train))

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """The shape of one input, without the batch dimension."""
        return tuple(np.load(self.x_test, mmap_mode="r").shape[1:])

    @property
    def count(self) -> int:
        """How many samples are scored."""
        return int(np.load(self.x_test, mmap_mode="r").shape[0])


def fetch_samples(experiment: Experiment, cache: Cache, progress: FetchProgress) -> Samples:
    """Return the samples of an experiment, from its task's sources or from its ``.npz`` file.

    Raises:
        DataError: if they cannot be had, are damaged, or have shapes that do not belong together.
    """
    if experiment.task is not None:
        return _task_samples(experiment, cache, progress)
    assert experiment.data.file is not None  # the config demands it without a task
    return npz_samples(experiment.data.file, cache, experiment.data.scale, experiment.data.offset)


def _task_samples(experiment: Experiment, cache: Cache, progress: FetchProgress) -> Samples:
    from models.datasets.dataset import DataUnavailable

    task = importlib.import_module(f"models.{experiment.task}")
    try:
        with cache.writing(cache.folder / "datasets"):
            data = task.load_data(experiment.data.folder, cache.folder, progress)
    except DataUnavailable as error:
        raise DataError(f"{experiment.file}: the data of task {experiment.task}: {error}") from error
    arrays = {name: getattr(data, name) for name in ("x_train", "y_train", "x_test", "y_test")}
    return _laid_out(arrays, cache, data.scale, data.offset, data.source)


def npz_samples(path: Path, cache: Cache, scale: float | None, offset: float | None) -> Samples:
    """Return the samples in an ``.npz`` file: ``x_test``, ``y_test`` and, if there are any, ``x_train``, ``y_train``.

    Without training samples, up to 500 of the test samples (a quarter at most) are set aside for calibration and are
    not scored, so that no number is taken on samples that a model has seen.

    Raises:
        DataError: naming the file, the array and what is expected.
    """
    arrays = read_npz(path)
    source = f"{path.name}: {len(arrays['x_test'])} test samples"
    if "x_train" not in arrays:
        pool = min(CALIBRATION_POOL, max(1, len(arrays["x_test"]) // 4))
        source += f", of which {pool} were set aside for calibration and not scored"
        # Drawn, since a file sorted by label would have one class set aside whole.
        order = np.random.default_rng(0).permutation(len(arrays["x_test"]))
        aside, scored = np.sort(order[:pool]), np.sort(order[pool:])
        arrays = {
            "x_train": arrays["x_test"][aside],
            "x_test": arrays["x_test"][scored],
            "y_test": arrays["y_test"][scored],
        }
    return _laid_out(arrays, cache, 1.0 if scale is None else scale, offset or 0.0, source)


def read_npz(path: Path) -> dict[str, Array]:
    """Return the checked arrays of an ``.npz`` file.

    Raises:
        DataError: if it is missing, not an ``.npz``, lacks an array or has arrays that do not belong together.
    """
    try:
        file = np.load(path, allow_pickle=False)
        if isinstance(file, np.ndarray):
            raise DataError(f"{path}: holds one bare array; expected an .npz file with x_test and y_test")
        with file:
            arrays = {name: file[name] for name in ("x_test", "y_test", "x_train", "y_train") if name in file.files}
            found = ", ".join(file.files) or "nothing"
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; expected an .npz file with x_test and y_test") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: cannot be read as .npz: {error}") from error
    _check_arrays(path, arrays, found)
    return {name: _flat_labels(array) if name.startswith("y_") else array for name, array in arrays.items()}


def _flat_labels(labels: Array) -> Array:
    """Return labels [n, 1], as some of Keras's own data sets have them, as [n]."""
    return labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels


def _check_arrays(path: Path, arrays: Mapping[str, Array], found: str) -> None:
    missing = [name for name in ("x_test", "y_test") if name not in arrays]
    if missing:
        raise DataError(f"{path}: has no {' and no '.join(missing)}; it holds {found}")
    if ("x_train" in arrays) != ("y_train" in arrays):
        raise DataError(f"{path}: has only one of x_train and y_train; expected both or neither")
    for name, array in arrays.items():
        if array.dtype.kind not in "fiub":
            raise DataError(f"{path}: {name} has dtype {array.dtype}; expected numbers")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise DataError(f"{path}: {name} has values that are not finite")
    for split in ("test", "train"):
        x, y = arrays.get(f"x_{split}"), arrays.get(f"y_{split}")
        if x is not None and y is not None and (x.ndim == 0 or y.ndim == 0 or len(x) != len(y) or len(x) < 2):
            raise DataError(
                f"{path}: x_{split} has shape {x.shape} and y_{split} {y.shape}; expected the same number of samples, "
                "2 at least"
            )
    if "x_train" in arrays and arrays["x_train"].shape[1:] != arrays["x_test"].shape[1:]:
        raise DataError(
            f"{path}: samples of x_train have shape {arrays['x_train'].shape[1:]} and those of x_test "
            f"{arrays['x_test'].shape[1:]}; expected the same"
        )


def _laid_out(arrays: Mapping[str, Array], cache: Cache, scale: float, offset: float, source: str) -> Samples:
    paths = {name: store_array(array, cache) for name, array in arrays.items()}
    return Samples(
        x_train=paths["x_train"],
        y_train=paths.get("y_train"),
        x_test=paths["x_test"],
        y_test=paths["y_test"],
        scale=scale,
        offset=offset,
        source=source,
    )


def store_array(array: Array, cache: Cache) -> Path:
    """Store an array as ``samples/<sha256>.npy`` of the cache, once, and return the path."""
    folder = cache.subfolder("samples")
    with cache.writing(folder):
        handle, temporary = tempfile.mkstemp(dir=folder, prefix=".part-", suffix=".npy")
        try:
            with os.fdopen(handle, "wb") as file:
                _write_npy(file, np.ascontiguousarray(array))
            path = folder / f"{file_sha256(Path(temporary))}.npy"
            Path(temporary).replace(path)
        finally:
            Path(temporary).unlink(missing_ok=True)
    return path


def _write_npy(file: IO[bytes], array: Array) -> None:
    # numpy's own writer tells of a full disk without the error number that would say so.
    np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
    file.write(array.reshape(-1).view(np.uint8).data)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
