"""The layers that a saved Keras model names, read without loading it: loading may run code that is in the file."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
_OUR_MODULES = ("keras", "tf_keras")
_MODELS = ("Functional", "Model", "Sequential", "TFOpLambda", "SlicingOpLambda")


def why_not(path: Path) -> str:
    """Return why a Keras file cannot be loaded, naming its layers with code of their own; "" when none is found."""
    try:
        document = _document(path)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
        return ""
    code = [_label(layer) for layer in _layers(document) if layer["class_name"] == "Lambda"]
    if code:
        return (
            f"has a Lambda layer, whose code would be run to load it: {', '.join(code)}; replace it by a layer of Keras"
        )
    own = [_label(layer) for layer in _layers(document) if not _is_keras(layer)]
    if own:
        return (
            f"has layers that are not Keras's own: {', '.join(own)}; build it from layers of Keras, or give it as a "
            "SavedModel (model.export), which can be converted and quantized, but not rewritten"
        )
    return ""


def is_hdf5(path: Path) -> bool:
    """Whether a file is HDF5, by its first bytes."""
    with path.open("rb") as file:
        return file.read(8) == HDF5_MAGIC


def has_lambda(path: Path) -> bool:
    """Whether a Keras file has a Lambda layer, at any depth."""
    return any(layer["class_name"] == "Lambda" for layer in _layers(_document(path)))


def _document(path: Path) -> Any:
    import h5py

    if is_hdf5(path):
        with h5py.File(path) as file:
            return json.loads(file.attrs["model_config"])
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read("config.json"))


def _layers(node: Any) -> Iterator[dict[str, Any]]:
    """Yield a serialized model, its layers and what they wrap, at any depth."""
    if not isinstance(node, dict) or not isinstance(node.get("config"), dict):
        return
    yield node
    for inner in (*node["config"].get("layers", ()), *node["config"].values()):
        if isinstance(inner, dict) and "name" in (inner.get("config") or ()):
            yield from _layers(inner)


def _is_keras(layer: dict[str, Any]) -> bool:
    import keras
    import tf_keras

    if "module" in layer:
        return str(layer["module"]).split(".")[0] in _OUR_MODULES
    name = layer["class_name"]  # HDF5 has no modules
    return name in _MODELS or hasattr(keras.layers, name) or hasattr(tf_keras.layers, name)


def _label(layer: dict[str, Any]) -> str:
    return f"{layer['config'].get('name', 'the model itself')} ({layer['class_name']})"
