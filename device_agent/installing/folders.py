"""Folders that appear and vanish whole: by a rename, of what is on the disk."""

from __future__ import annotations

import ctypes
import os
import shutil
from pathlib import Path
from typing import Any

from device_agent.files import sync_folder


def name(folder: Path, final: Path) -> None:
    """Give what is on the disk its name, in place of what had it before."""
    if final.is_dir():
        rename_and_remove(final)
    folder.rename(final)
    sync_folder(final.parent)


def sync_all_below(folder: Path) -> None:
    """Make all that was written to the file system of ``folder`` survive a power cut.

    syncfs(2) takes one pass over the disk where an fsync of each of a thousand files takes as many.
    """
    syncfs: Any = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if syncfs is None:
            os.sync()
        elif syncfs(descriptor):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(folder))
    finally:
        os.close(descriptor)


def folders_in(folder: Path) -> list[Path]:
    """Return what lies in ``folder``; nothing when it is not there."""
    return sorted(folder.iterdir()) if folder.is_dir() else []


def rename_and_remove(folder: Path) -> None:
    """Remove a folder, which has lost its name before anything in it is gone."""
    gone = folder.with_name(f".gone-{folder.name}")
    folder.rename(gone)
    sync_folder(folder.parent)
    remove(gone)


def remove(path: Path) -> None:
    """Remove a file, a link or a folder."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
