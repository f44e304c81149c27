"""SHA-256 without OpenSSL."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

_CHUNK_BYTES = 1 << 18


def sha256_of_bytes(content: bytes) -> str:
    """Return the SHA-256 of ``content`` in hexadecimal."""
    return str(_sha256(content).hexdigest())


def sha256_of_file(path: Path) -> str:
    """Return the SHA-256 of the file's content in hexadecimal, read in small pieces."""
    digest = _sha256()
    with path.open("rb") as file:
        for chunk in iter(lambda: file.read(_CHUNK_BYTES), b""):
            digest.update(chunk)
    return str(digest.hexdigest())


def _sha256(content: bytes = b"") -> Any:
    # hashlib loads OpenSSL, 4 MB of the 20 that an idle daemon may have. CPython's own module was renamed in 3.12, and
    # some distributions build without it.
    for name in ("_sha2", "_sha256", "hashlib"):
        try:
            return importlib.import_module(name).sha256(content)
        except ImportError:
            continue
    raise ImportError("this Python has no SHA-256")
