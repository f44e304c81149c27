"""Files and folders that a user names, copied into the cache by their content: what is built from them is built from
just that.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from pipeline.cache import Cache, key_of
from pipeline.errors import ModelError
from pipeline.samples import file_sha256


def keep(path: Path, cache: Cache) -> tuple[Path, str]:
    """Return our copy of a model file or folder, and its content's SHA-256, which names the copy's folder.

    Raises:
        ModelError: if it changes while it is copied.
    """
    digest = content_sha256(path)
    with cache.entry("models", digest) as (folder, was_there):
        if not was_there:
            with cache.writing(folder):
                (shutil.copytree if path.is_dir() else shutil.copyfile)(path, folder / path.name)
            if content_sha256(folder / path.name) != digest:
                raise ModelError(f"model {path}: changed while it was read; run again")
    return next((cache.folder / "models" / digest).iterdir()), digest


def content_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, or of a folder's files with their names."""
    if path.is_file():
        return file_sha256(path)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return key_of([[file.relative_to(path).as_posix(), file_sha256(file)] for file in files])
