"""SHA-256 without OpenSSL in this process; of large files by OpenSSL, which is several times as fast, in another."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_CHUNK_BYTES = 1 << 18
# From here on a process of its own, 50 ms, takes less time than it saves.
_LARGE_BYTES = 1 << 24
_TIMEOUT_S = 600.0
_HEX = re.compile(r"[0-9a-f]{64}")
_SCRIPT = """
import hashlib, sys
digest = hashlib.sha256()
with open(sys.argv[1], "rb") as file:
    for chunk in iter(lambda: file.read(1 << 18), b""):
        digest.update(chunk)
print(digest.hexdigest())
"""


def sha256_of_bytes(content: bytes) -> str:
    """Return the SHA-256 of ``content`` in hexadecimal."""
    return str(_sha256(content).hexdigest())


def sha256_of_file(path: Path) -> str:
    """Return the SHA-256 of the file's content in hexadecimal, read in small pieces."""
    return begin_sha256(path)()


def begin_sha256(path: Path) -> Callable[[], str]:
    """Return what waits for the SHA-256 of the file's content; another process reads a large file meanwhile."""
    child = _begin_elsewhere(path) if path.stat().st_size >= _LARGE_BYTES else None
    return lambda: (_end_elsewhere(child) if child else "") or _hashed_here(path)


def _hashed_here(path: Path) -> str:
    digest = _sha256()
    with path.open("rb") as file:
        for chunk in iter(lambda: file.read(_CHUNK_BYTES), b""):
            digest.update(chunk)
    return str(digest.hexdigest())


def _begin_elsewhere(path: Path) -> subprocess.Popen[str] | None:
    command = [sys.executable, "-I", "-S", "-c", _SCRIPT, str(path)]
    try:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
    except OSError:
        return None


def _end_elsewhere(child: subprocess.Popen[str]) -> str:
    """Return the hash that another Python found; empty when it could not, for whatever reason: then it is done here."""
    with child:
        try:
            said = child.communicate(timeout=_TIMEOUT_S)[0].strip()
        except (subprocess.TimeoutExpired, UnicodeDecodeError):
            child.kill()
            return ""
    return said if child.returncode == 0 and _HEX.fullmatch(said) else ""


def _sha256(content: bytes = b"") -> Any:
    # hashlib loads OpenSSL, 4 MB of the 20 that an idle daemon may have. CPython's own module was renamed in 3.12, and
    # some distributions build without it.
    for name in ("_sha2", "_sha256", "hashlib"):
        try:
            return importlib.import_module(name).sha256(content)
        except ImportError:
            continue
    raise ImportError("this Python has no SHA-256")
