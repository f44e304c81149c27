"""Files that survive a power cut whole, and disks without room for them."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from device_agent.errors import Refusal
from device_agent.protocol import DISK_FULL


def free_bytes(home: Path) -> int:
    """Return how much an unprivileged process may still write there."""
    found = os.statvfs(home)
    return found.f_bavail * found.f_frsize


def write_file(path: Path, content: bytes) -> None:
    """Write ``content`` so that after a power cut there is all of it at ``path`` or what was there before."""
    temporary = path.with_name(f".tmp-{path.name}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames within ``folder`` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_disk_full(error: OSError) -> bool:
    """Say whether ``error`` means that there is no room: a full file system or a quota that is used up."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def disk_full(home: Path) -> Refusal:
    """Return the refusal for a full disk, with how much is free."""
    return Refusal(DISK_FULL, f"no space left for {home}: {free_bytes(home)} bytes are free; make room there")
