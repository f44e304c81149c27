"""The recipe inside an artifact: a file ``edgepress.json`` in a ZIP archive behind the flatbuffer.

That is how TFLite Metadata carries "associated files": ``unzip -l`` shows them, no buffer is packed anew, and runtimes
ignore what follows the flatbuffer. The same recipe gives the same bytes.
"""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.errors import ModelError

FILE_NAME = "edgepress.json"
SCHEMA = 1

_MOST_BYTES = 16 << 20
_EPOCH = (1980, 1, 1, 0, 0, 0)
_READABLE_FILE = 0o100644 << 16
# What zipfile, json and pydantic raise for an entry that was overwritten or cut.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    ValueError,
    KeyError,
    TypeError,
    EOFError,
    OSError,
    RuntimeError,
    struct.error,
)


@dataclass(frozen=True)
class RecipeStep:
    """One technique with every setting, those that were not asked for too."""

    technique: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Recipe:
    """What an artifact was made from, and how: with the same ``toolchain`` it gives the same bytes again.

    ``inputs`` are SHA-256 by what they are of: "model", "x_train", "y_train". The model was given
    ``x * scale + offset``. ``calibration_indices`` are the training samples that the quantizer looked at, in their
    order. ``runtime`` is what the conversion was asked to fit.
    """

    steps: tuple[RecipeStep, ...]
    inputs: Mapping[str, str]
    toolchain: Mapping[str, str]
    seed: int
    runtime: str
    scale: float = 1.0
    offset: float = 0.0
    calibration_indices: tuple[int, ...] = ()
    schema: int = SCHEMA


def with_recipe(content: bytes, recipe: Recipe) -> bytes:
    """Return a flatbuffer with its recipe behind it; an archive that is there already keeps its other files.

    Raises:
        ModelError: if it has a recipe already.
    """
    if recipe_of(content) is not None:
        raise ModelError(f"the flatbuffer has a recipe already: {FILE_NAME}")
    text = json.dumps(asdict(recipe), sort_keys=True, separators=(",", ":"))
    # Neither the clock nor the user's umask may tell in the bytes.
    entry = zipfile.ZipInfo(FILE_NAME, _EPOCH)
    entry.compress_type, entry.external_attr, entry.create_system = zipfile.ZIP_DEFLATED, _READABLE_FILE, 3
    file = io.BytesIO(content)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr(entry, text.encode("ascii"), compresslevel=9)
    return file.getvalue()


def recipe_of(content: bytes) -> Recipe | None:
    """Return the recipe behind a flatbuffer, None when there is none.

    Raises:
        ModelError: if there is one that cannot be read, or is of a later edgepress.
    """
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))
    except _DAMAGE:
        return None
    with archive:
        if FILE_NAME not in archive.namelist():
            return None
        try:
            return _parsed(_unpacked(archive))
        except _DAMAGE as error:
            raise ModelError(f"{FILE_NAME} in the file is damaged: {' '.join(str(error).split())[:200]}") from error


def _unpacked(archive: zipfile.ZipFile) -> bytes:
    size = archive.getinfo(FILE_NAME).file_size
    if size > _MOST_BYTES:
        raise ModelError(f"{FILE_NAME} in the file says it has {size} bytes; at most {_MOST_BYTES} are read")
    return archive.read(FILE_NAME)


def _parsed(text: bytes) -> Recipe:
    from pydantic import TypeAdapter

    found = json.loads(text)
    if found["schema"] > SCHEMA:
        raise ModelError(f"{FILE_NAME} in the file has schema {found['schema']}; this edgepress reads up to {SCHEMA}")
    return TypeAdapter(Recipe).validate_python(found)
