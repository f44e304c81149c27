"""A bundle, unpacked below a folder: regular files only, none outside it, none twice."""

from __future__ import annotations

import gzip
import hashlib
import os
import tarfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO, cast

from device_agent.errors import AgentError

_CHUNK_BYTES = 1 << 18


def unpack(bundle: Path, folder: Path) -> str:
    """Unpack a gzipped tar below ``folder`` and return the SHA-256 of the tar.

    Raises:
        AgentError: if it is damaged, or has anything but regular files with plain relative names.
    """
    try:
        with gzip.open(bundle, "rb") as plain:
            hashed = _Hashed(cast("BinaryIO", plain))
            with tarfile.open(fileobj=cast("Any", hashed), mode="r|") as tar:
                for member in tar:
                    _write(tar, member, folder)
            hashed.read_to_end()
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise AgentError(f"{bundle.name} is no bundle: {error}") from error
    return hashed.hexdigest()


class _Hashed:
    """What is read is hashed; that is all that a tar in stream mode asks of its file."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._digest = hashlib.sha256()

    def read(self, size: int) -> bytes:
        chunk = self._source.read(size)
        self._digest.update(chunk)
        return chunk

    def read_to_end(self) -> None:
        while self.read(_CHUNK_BYTES):
            pass

    def hexdigest(self) -> str:
        return str(self._digest.hexdigest())


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    content = tar.extractfile(member) if member.isreg() else None
    if content is None:
        raise AgentError(f"bundle has {member.name!r}, which is no regular file; only such are allowed")
    path = folder.joinpath(*_parts(member.name))
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    # O_EXCL follows no link and writes over nothing. The mode is set apart from the umask of whoever installs.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        for chunk in iter(lambda: content.read(_CHUNK_BYTES), b""):
            file.write(chunk)
        os.fchmod(file.fileno(), 0o755 if member.mode & 0o100 else 0o644)


def _parts(name: str) -> list[str]:
    parts = name.split("/")
    if any(part in ("", ".", "..") or "\\" in part or not part.isprintable() for part in parts):
        raise AgentError(f"bundle has {name!r}, which is no plain relative path; only such are allowed")
    return parts
