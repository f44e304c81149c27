"""Content-addressed store: ``<home>/blobs/<sha256>``, filled through ``.part-<sha256>`` beside it, and kept small.

A blob's time of modification is when it was last used: asked about, committed or submitted.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from device_agent import log
from device_agent.errors import Refusal
from device_agent.files import sync_folder
from device_agent.protocol import BLOB_MISMATCH, BLOB_MISSING, DISK_FULL, blob_path, part_path
from device_agent.sha256 import begin_sha256, sha256_of_bytes, sha256_of_file

_ASKED_FOR_S = 600.0
_PART_KEPT_S = 86400.0


@dataclass(frozen=True)
class _Asked:
    """When a host asked about a blob, by the monotonic clock, and under which lease."""

    at_s: float
    token: str


class BlobStore:
    """What hosts have sent, each under the SHA-256 of its content; every method may be called from any thread."""

    def __init__(self, home: Path, quota_bytes: int) -> None:
        self._home = str(home)
        self._quota_bytes = quota_bytes
        self._committing = threading.Lock()
        # Another lock: verifying a large blob takes long, and nobody who only asks should wait for it.
        self._using = threading.Lock()
        self._asked: dict[str, _Asked] = {}
        self._last_use_ns = 0

    def missing(self, wanted: Iterable[str], token: str) -> list[str]:
        """Return those of ``wanted`` that are not here, each once, in the order asked.

        None of them is removed as long as the lease of ``token`` is in force, and not within ten minutes.
        """
        missing = []
        with self._using:
            for sha256 in dict.fromkeys(wanted):
                self._asked[sha256] = _Asked(time.monotonic(), token)
                if not self._note_use(sha256):
                    missing.append(sha256)
        return missing

    def partial(self, sha256: str) -> dict[str, str | int]:
        """Return what has arrived of ``sha256`` and the hash of that, so that the host can resume or begin anew."""
        part = Path(part_path(self._home, sha256))
        if not part.is_file():
            return {"sha256": sha256, "part_bytes": 0, "part_sha256": sha256_of_bytes(b"")}
        return {"sha256": sha256, "part_bytes": part.stat().st_size, "part_sha256": sha256_of_file(part)}

    def commit(self, sha256: str, size_bytes: int) -> None:
        """Verify the part and move it into its place; what is in place already stays.

        Raises:
            Refusal: BLOB_MISSING if nothing has arrived; BLOB_MISMATCH if it is not what was announced, DISK_FULL if it
                is larger than the quota; it is then removed.
        """
        part, blob = Path(part_path(self._home, sha256)), Path(blob_path(self._home, sha256))
        with self._committing:
            if not blob.is_file():
                self._check_quota(part, sha256, size_bytes)
                _verify_and_sync(part, sha256, size_bytes)
                part.replace(blob)
                sync_folder(blob.parent)
        with self._using:
            self._note_use(sha256)

    def make_room(self, named: AbstractSet[str], token: str) -> None:
        """Remove the blobs that were not used for the longest time, until the store keeps to its quota.

        What is ``named``, or was asked about under the lease of ``token`` or lately, stays even so. Parts that nobody
        has touched for a day go too.
        """
        with self._using:
            self._forget_asked(token)
            kept = {*named, *self._asked}
            self._remove_old_parts(kept)
            found = [(path, path.stat()) for path in self._blobs()]
            excess = sum(stat.st_size for _, stat in found) - self._quota_bytes
            for path, stat in sorted(found, key=lambda entry: entry[1].st_mtime_ns):
                if excess > 0 and path.name not in kept:
                    path.unlink()
                    excess -= stat.st_size
                    log.note(f"blob {path.name} of {stat.st_size} bytes removed, to keep to the quota")

    def _check_quota(self, part: Path, sha256: str, size_bytes: int) -> None:
        if size_bytes > self._quota_bytes:
            part.unlink(missing_ok=True)
            quota = f"the quota of {self._quota_bytes >> 20} MiB"
            remedy = 'start the agent with a larger "--quota-mib"'
            raise Refusal(DISK_FULL, f"blob {sha256} has {size_bytes} bytes, more than {quota}; {remedy}")

    def _note_use(self, sha256: str) -> bool:
        """Note that a blob is used now; return whether it is here."""
        # Always later than any use before: the wall clock may be set back, or begin in 1970 at every start.
        if not self._last_use_ns:
            self._last_use_ns = max((path.stat().st_mtime_ns for path in self._blobs()), default=0)
        self._last_use_ns = max(time.time_ns(), self._last_use_ns + 1)
        try:
            os.utime(blob_path(self._home, sha256), ns=(self._last_use_ns, self._last_use_ns))
        except FileNotFoundError:
            return False
        return True

    def _forget_asked(self, token: str) -> None:
        since_s = time.monotonic() - _ASKED_FOR_S
        self._asked = {
            sha256: asked
            for sha256, asked in self._asked.items()
            if asked.at_s > since_s or (token and asked.token == token)
        }

    def _remove_old_parts(self, kept: AbstractSet[str]) -> None:
        before_s = time.time() - _PART_KEPT_S
        for part in Path(self._home, "blobs").glob(".part-*"):
            # Another connection may have it moved to its place right now.
            with suppress(FileNotFoundError):
                if part.stat().st_mtime < before_s and part.name[len(".part-") :] not in kept:
                    part.unlink()

    def _blobs(self) -> Iterable[Path]:
        return Path(self._home, "blobs").glob("[0-9a-f]*")


def _verify_and_sync(part: Path, sha256: str, size_bytes: int) -> None:
    """See that a part is what was announced, and bring it to the disk meanwhile: either takes as long as the other."""
    if not part.is_file():
        raise Refusal(BLOB_MISSING, f"{part} is not there; put the content there before blob.commit")
    size = part.stat().st_size
    if size != size_bytes:
        part.unlink()
        raise Refusal(BLOB_MISMATCH, f"blob {sha256} arrived with {size} bytes; expected {size_bytes}")
    hashed = begin_sha256(part)
    try:
        _sync_file(part)
    finally:
        found = hashed()
    if found != sha256:
        part.unlink()
        raise Refusal(BLOB_MISMATCH, f"blob {sha256} arrived with SHA-256 {found}; it was removed, send it again")


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
