"""Small files of the kernel: their text, names and numbers; None for what is missing, unreadable or nonsense."""

from __future__ import annotations

import os
import re
from pathlib import Path

# More than any of these files has; it also ends the reading of something endless.
_LARGEST_BYTES = 1 << 20
_LONGEST_NAME = 200
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_DECIMAL = re.compile(r"[0-9]{1,9}(\.[0-9]{1,18})?")


def read_text(path: Path) -> str | None:
    """Return the text of ``path`` without the white space and zero bytes around it; None when there is none."""
    try:
        content = _read_bytes(path)
    except OSError:
        return None
    return content.decode(errors="replace").strip("\0 \t\r\n") or None


def read_name(path: Path) -> str | None:
    """Return the single printable line in ``path``."""
    return as_name(read_text(path))


def read_integer(path: Path) -> int | None:
    """Return the one integer in ``path``."""
    return as_integer(read_text(path))


def read_field(path: Path, name: str, separator: str) -> str | None:
    """Return the value of the first line ``<name><separator><value>`` in ``path``, without quotation marks."""
    for line in (read_text(path) or "").splitlines():
        key, _, value = line.partition(separator)
        if key.strip() == name:
            return as_name(value.strip().strip('"'))
    return None


def read_kib(path: Path, name: str) -> int | None:
    """Return in bytes what a line ``<name>: <number> kB`` of ``path`` says."""
    number, _, unit = (read_field(path, name, ":") or "").partition(" ")
    kib = as_integer(number)
    return kib * 1024 if kib is not None and kib >= 0 and unit == "kB" else None


def as_name(text: str | None) -> str | None:
    """Return ``text`` if it can be shown as it is; bytes that are no UTF-8 cannot."""
    if text and text.isprintable() and "\ufffd" not in text and len(text) <= _LONGEST_NAME:
        return text
    return None


def as_integer(text: str | None) -> int | None:
    """Return the integer that ``text`` is; one of more than 18 digits is no reading of any sensor."""
    return int(text) if text and _INTEGER.fullmatch(text) else None


def as_decimal(text: str | None) -> float | None:
    """Return the plain decimal number that ``text`` is: no sign, no exponent, never infinite."""
    return float(text) if text and _DECIMAL.fullmatch(text) else None


def matching(root: Path, pattern: str) -> list[Path]:
    """Return what matches ``pattern`` below ``root``, with zone 10 after zone 9."""
    try:
        return sorted(root.glob(pattern), key=_natural_order)
    except OSError:
        return []


def _natural_order(path: Path) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"([0-9]+)", str(path))]


def _read_bytes(path: Path) -> bytes:
    # Not Path.read_text: a zone that is switched off (cv0-thermal of a Jetson Orin) answers EAGAIN, for which Python's
    # buffered readers return None and its text readers raise TypeError. O_NONBLOCK, or a FIFO would hold us for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        content = b""
        while len(content) < _LARGEST_BYTES and (piece := os.read(descriptor, 1 << 16)):
            content += piece
        return content
    finally:
        os.close(descriptor)
