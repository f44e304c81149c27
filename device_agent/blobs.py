"""Content-addressed store: ``<home>/blobs/<sha256>``, filled through ``.part-<sha256>`` beside it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from pathlib import Path

from device_agent.errors import Refusal
from device_agent.home import sync_folder
from device_agent.protocol import BLOB_MISMATCH, BLOB_MISSING, blob_path, part_path
from device_agent.sha256 import sha256_of_bytes, sha256_of_file


class BlobStore:
    """What the host has sent, each under the SHA-256 of its content."""

    def __init__(self, home: Path) -> None:
        self._home = str(home)
        self._lock = threading.Lock()

    def missing(self, wanted: Iterable[str]) -> list[str]:
        """Return those of ``wanted`` that are not here, each once, in the order asked."""
        return [sha256 for sha256 in dict.fromkeys(wanted) if not Path(blob_path(self._home, sha256)).is_file()]

    def partial(self, sha256: str) -> dict[str, str | int]:
        """Return what has arrived of ``sha256`` and the hash of that, so that the host can resume or begin anew."""
        part = Path(part_path(self._home, sha256))
        if not part.is_file():
            return {"sha256": sha256, "part_bytes": 0, "part_sha256": sha256_of_bytes(b"")}
        return {"sha256": sha256, "part_bytes": part.stat().st_size, "part_sha256": sha256_of_file(part)}

    def commit(self, sha256: str, size_bytes: int) -> None:
        """Verify the part and move it into its place; what is in place already stays.

        Raises:
            Refusal: BLOB_MISSING if nothing has arrived; BLOB_MISMATCH if it is not what was announced, which is then
                removed.
        """
        part, blob = Path(part_path(self._home, sha256)), Path(blob_path(self._home, sha256))
        with self._lock:
            if not blob.is_file():
                _verify(part, sha256, size_bytes)
                _sync_file(part)
                part.replace(blob)
                sync_folder(blob.parent)


def _verify(part: Path, sha256: str, size_bytes: int) -> None:
    if not part.is_file():
        raise Refusal(BLOB_MISSING, f"{part} is not there; put the content there before blob.commit")
    size = part.stat().st_size
    if size != size_bytes:
        part.unlink()
        raise Refusal(BLOB_MISMATCH, f"blob {sha256} arrived with {size} bytes; expected {size_bytes}")
    found = sha256_of_file(part)
    if found != sha256:
        part.unlink()
        raise Refusal(BLOB_MISMATCH, f"blob {sha256} arrived with SHA-256 {found}; it was removed, send it again")


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
