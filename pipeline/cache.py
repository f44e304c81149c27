"""The cache on this machine: where things lie, and how they get there whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import StorageError

_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Cache:
    """A folder of things that can be made again; every entry is a folder that appears by one rename."""

    folder: Path

    def subfolder(self, name: str) -> Path:
        """Return a folder of the cache, made when missing."""
        path = self.folder / name
        with self.writing(path):
            path.mkdir(parents=True, exist_ok=True)
        return path

    @contextlib.contextmanager
    def writing(self, path: Path) -> Iterator[None]:
        """Turn a full or unwritable disk into a StorageError that names ``path``."""
        try:
            yield
        except OSError as error:
            raise storage_error(error, path) from error

    @contextlib.contextmanager
    def entry(self, kind: str, key: str, replace: bool = False) -> Iterator[tuple[Path, bool]]:
        """Give a folder to fill, and whether it is there already.

        When it was not there, it becomes the entry ``kind/key`` as the block ends, and is removed if the block fails.
        With ``replace`` it is always made anew.
        """
        final = self.subfolder(kind) / key
        if final.is_dir() and not replace:
            yield final, True
            return
        folder = self.subfolder(kind) / f".part-{key}-{os.getpid()}"
        shutil.rmtree(folder, ignore_errors=True)
        try:
            with self.writing(folder):
                folder.mkdir()
            yield folder, False
            if replace:
                shutil.rmtree(final, ignore_errors=True)
            with self.writing(folder), contextlib.suppress(FileExistsError):
                _rename_unless_there(folder, final)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @contextlib.contextmanager
    def lock(self, kind: str, key: str) -> Iterator[None]:
        """Hold the entry ``kind/key`` for this process alone; others wait. It falls free when the process ends."""
        with self.writing(self.folder):
            file = (self.subfolder(kind) / f".lock-{key}").open("w")
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def remove_leftovers(self, kind: str) -> None:
        """Remove what processes that have died left half-made."""
        for folder in self.subfolder(kind).glob(".part-*"):
            pid = folder.name.rpartition("-")[2]
            if pid.isdecimal() and not Path(f"/proc/{pid}").exists():
                shutil.rmtree(folder, ignore_errors=True)


def _rename_unless_there(folder: Path, final: Path) -> None:
    # Two runs may build the same entry at once: both made the same thing, so the second one's is dropped.
    try:
        folder.rename(final)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise FileExistsError from error
        raise


def storage_error(error: OSError, path: Path) -> StorageError:
    """Return the StorageError that tells of ``error`` at ``path``."""
    if error.errno in _FULL:
        place = next((parent for parent in (path, *path.parents) if parent.exists()), Path("/"))
        free_mib = shutil.disk_usage(place).free / 2**20
        return StorageError(f"disk full while writing {path}: {free_mib:.1f} MiB free; make room and run again")
    return StorageError(f"cannot write {path}: {error.strerror or error}")


def key_of(*parts: Any) -> str:
    """Return the SHA-256 of JSON-ready values: the key of what is made from just these."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def write_text(path: Path, text: str) -> None:
    """Write a text file under a temporary name and rename it. Raises StorageError when the disk is full."""
    temporary = path.with_name(f".part-{path.name}")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise storage_error(error, path) from error


def user_cache() -> Cache:
    """Return the cache in the user's cache folder (``$XDG_CACHE_HOME/edgepress`` or ``~/.cache/edgepress``)."""
    import platformdirs

    return Cache(Path(platformdirs.user_cache_dir("edgepress")))
