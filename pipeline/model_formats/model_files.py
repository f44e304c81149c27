"""Model files as users have them: which format a path is, and how each is loaded."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal

from pipeline.errors import ModelError
from pipeline.model_formats import saved_layers

Format = Literal["keras3", "keras2", "saved_model", "tflite", "onnx"]
ALLOWED = "a Keras .keras or .h5 file, a SavedModel folder, an .onnx file, or a .tflite file"

_LAMBDA = re.compile(r'"class_name"\s*:\s*"Lambda"')

# Keras 3 writes .h5 too, and both Keras versions write .keras: the version inside tells.


def detect_format(path: Path) -> Format:
    """Return the format of a model, by its content.

    Raises:
        ModelError: if there is no such path, or its content is none of the formats.
    """
    if not path.exists():
        raise ModelError(f"model {path}: no such file; expected {ALLOWED}")
    if path.is_dir():
        if (path / "saved_model.pb").is_file():
            return "saved_model"
        raise ModelError(f"model {path}: the folder has no saved_model.pb; expected {ALLOWED}")
    try:
        with path.open("rb") as file:
            head = file.read(8)
    except OSError as error:
        raise ModelError(f"model {path}: cannot be read: {error.strerror}") from error
    if head[4:8] == b"TFL3":
        return "tflite"
    if head[:4] == b"PK\x03\x04":
        return _by_version(path, _zip_version(path))
    if head == saved_layers.HDF5_MAGIC:
        return _by_version(path, _hdf5_version(path))
    if path.suffix.lower() == ".onnx":  # has no magic number; whether it is one is seen when it is converted
        return "onnx"
    raise ModelError(f"model {path}: content begins with {head!r}; expected {ALLOWED}")


def load_keras(path: Path, kind: Format) -> Any:
    """Return a model that can be called: of Keras 3, of tf_keras, or a loaded SavedModel.

    Raises:
        ModelError: if it cannot be loaded, naming the reason.
    """
    import keras
    import tensorflow as tf
    import tf_keras

    try:
        _refuse_code(path, kind)
        if kind == "keras3":
            return keras.models.load_model(path, compile=False)
        if kind == "keras2" or _has_safe_layers(path):
            aware = "QuantizeWrapper" in _configuration(path)
            with quantize_scope() if aware else nullcontext():  # to import TF-MOT takes seconds
                return tf_keras.models.load_model(path, compile=False)
        return tf.saved_model.load(str(path))
    except ModelError:
        raise
    except Exception as error:  # whatever a damaged or foreign file makes Keras raise
        reason = "" if path.is_dir() else saved_layers.why_not(path)
        raise ModelError(reason or f"cannot be loaded: {first_line(error)}") from error


def as_tf_keras(model: Any) -> Any:
    """Return ``model`` as a tf_keras model, which the techniques of TF-MOT need.

    Raises:
        ModelError: if it has no Keras layers, or cannot be rewritten faithfully.
    """
    import keras
    import tf_keras

    from pipeline import compression

    if isinstance(model, tf_keras.Model):
        return model
    if isinstance(model, keras.Model):
        from pipeline.model_formats.keras_bridge import to_tf_keras

        return to_tf_keras(model)
    converting = [name for name in compression.known() if not compression.rewrites(name)]
    raise ModelError(
        "a SavedModel without Keras layers has none that could be rewritten; it can be treated by "
        f"{', '.join(converting)}, which convert; give the .keras or .h5 file for the others"
    )


def is_quantization_aware(model: Any) -> bool:
    """Whether a Keras model has TF-MOT's quantize wrappers."""
    return any(type(layer).__name__.startswith("Quantize") for layer in getattr(model, "layers", []))


@contextmanager
def quantize_scope() -> Iterator[None]:
    """Let tf_keras build TF-MOT's quantize wrappers from their configuration."""
    import tensorflow_model_optimization as tfmot
    import tf_keras
    from tensorflow_model_optimization.python.core.quantization.keras import quantize_layer

    class QuantizeLayer(quantize_layer.QuantizeLayer):  # type: ignore[misc]
        def build_from_config(self, config: dict[str, Any]) -> None:
            """Wait for the first call: TF-MOT's layer, built here, would be built once more there."""

    with (
        tfmot.quantization.keras.quantize_scope(),
        tf_keras.utils.custom_object_scope({"QuantizeLayer": QuantizeLayer}),
    ):
        yield


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text that says something, at most 300 characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]


def _refuse_code(path: Path, kind: Format) -> None:
    """Raise ModelError for a Lambda layer in an HDF5 file: Keras 2 would run the code in it, without asking."""
    if kind in ("keras2", "keras3") and saved_layers.is_hdf5(path) and saved_layers.has_lambda(path):
        raise ModelError(saved_layers.why_not(path))


def _has_safe_layers(path: Path) -> bool:
    """Whether a SavedModel tells of its Keras layers, none of which is a Lambda with code of its own.

    Without the layers it is a graph, which can be converted all the same.
    """
    metadata = path / "keras_metadata.pb"
    return metadata.is_file() and not _LAMBDA.search(metadata.read_bytes().decode("latin-1"))


def _configuration(path: Path) -> str:
    """Return the text in which a Keras 2 model names its layers."""
    if path.is_dir():
        return (path / "keras_metadata.pb").read_bytes().decode("latin-1")
    if saved_layers.is_hdf5(path):
        import h5py

        with h5py.File(path) as file:
            return _text(file.attrs["model_config"])
    with zipfile.ZipFile(path) as archive:
        return archive.read("config.json").decode()


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _by_version(path: Path, version: str) -> Format:
    if version.startswith("3."):
        return "keras3"
    if version.startswith("2."):
        return "keras2"
    raise ModelError(f'model {path}: was saved by Keras "{version}"; expected 2.x or 3.x')


def _zip_version(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            return str(json.loads(archive.read("metadata.json"))["keras_version"])
    except (KeyError, ValueError, zipfile.BadZipFile) as error:
        raise ModelError(f"model {path}: is a zip archive without Keras's metadata.json: {error}") from error


def _hdf5_version(path: Path) -> str:
    import h5py

    try:
        with h5py.File(path) as file:
            version = file.attrs.get("keras_version", "")
            if "model_config" not in file.attrs:
                raise ModelError(f"model {path}: holds weights only; save the whole model")
    except OSError as error:
        raise ModelError(f"model {path}: is a damaged HDF5 file: {error}") from error
    return _text(version)
