"""Which bytes have to travel between host and device, and how many of them have."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from device_agent.protocol import JobFile
from pipeline.devices.agent_answers import MissingBlob

TransferProgress = Callable[[int, int], None]
"""Called with the bytes done and the bytes to do: once at the start, and whenever some more are done."""

CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Blob:
    """A local file and the SHA-256 of its content."""

    sha256: str
    path: Path

    @property
    def size_bytes(self) -> int:
        """The file's size now."""
        return self.path.stat().st_size


@dataclass(frozen=True)
class Upload:
    """A blob that the device lacks; its first ``offset`` bytes are there already and need not be sent."""

    blob: Blob
    size_bytes: int
    part_bytes: int
    offset: int

    @property
    def bytes_to_send(self) -> int:
        """What has to travel."""
        return self.size_bytes - self.offset

    @property
    def bytes_to_allocate(self) -> int:
        """What it takes of the device's free space, where the part that was begun takes some already."""
        return self.size_bytes - self.part_bytes


def plan_upload(blob: Blob, begun: MissingBlob) -> Upload:
    """Go on with the part that was ``begun`` on the device, but only when its hash is that of our own prefix."""
    size_bytes, part_bytes = blob.size_bytes, begun.part_bytes
    is_prefix = 0 < part_bytes <= size_bytes and _sha256(blob.path, part_bytes) == begun.part_sha256
    return Upload(blob, size_bytes, part_bytes, part_bytes if is_prefix else 0)


def is_here(file: JobFile, folder: Path) -> bool:
    """Tell whether ``folder`` has the very content of ``file``."""
    path = folder / file.name
    return path.is_file() and path.stat().st_size == file.size_bytes and _sha256(path, file.size_bytes) == file.sha256


class Meter:
    """Adds up the bytes of several transfers."""

    def __init__(self, total_bytes: int, progress: TransferProgress) -> None:
        self.done_bytes = 0
        self._total_bytes = total_bytes
        self._progress = progress

    def expect(self, size_bytes: int) -> None:
        """Note that so many bytes are still to come, whatever was expected before."""
        self._total_bytes = self.done_bytes + size_bytes
        self.advance(0)

    def advance(self, size_bytes: int) -> None:
        """Note that so many more bytes are through."""
        self.done_bytes += size_bytes
        self._progress(self.done_bytes, self._total_bytes)


def often(progress: TransferProgress, every_s: float, call: Callable[[], None]) -> TransferProgress:
    """Return ``progress`` that calls ``call`` as well, as soon as ``every_s`` seconds have passed since it last did."""
    last_s = time.monotonic()

    def report(done_bytes: int, total_bytes: int) -> None:
        nonlocal last_s
        progress(done_bytes, total_bytes)
        if time.monotonic() - last_s >= every_s:
            call()
            last_s = time.monotonic()

    return report


def _sha256(path: Path, size_bytes: int) -> str:
    digest, left = hashlib.sha256(), size_bytes
    with path.open("rb") as source:
        while left and (chunk := source.read(min(CHUNK_BYTES, left))):
            digest.update(chunk)
            left -= len(chunk)
    return digest.hexdigest()
