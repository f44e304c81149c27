"""What a value from the other side must look like, and the error for one that does not."""

from __future__ import annotations

import re

_SHA256 = re.compile(r"[0-9a-f]{64}")
_IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_JOB_ID = re.compile(r"[0-9a-f]{16}")


class ProtocolError(ValueError):
    """A message that is not of the protocol's form; the text says what was wrong and what is allowed."""


def check_sha256(what: str, value: object) -> str:
    """Return ``value`` when it is 64 lower-case hexadecimal digits.

    Raises:
        ProtocolError: otherwise.
    """
    return _matching(_SHA256, what, value, "64 lower-case hexadecimal digits")


def check_identifier(what: str, value: object) -> str:
    """Return ``value`` when it is a letter followed by up to 63 letters, digits or underscores."""
    return _matching(_IDENTIFIER, what, value, "a letter, then letters, digits or underscores, 64 at most")


def check_file_name(what: str, value: object) -> str:
    """Return ``value`` when it can be a file's name: no separator, no leading dot, 128 characters at most."""
    return _matching(_FILE_NAME, what, value, "letters, digits, _ . and -, not starting with a sign, 128 at most")


def check_job_id(value: object) -> str:
    """Return ``value`` when it is a job's id: 16 lower-case hexadecimal digits."""
    return _matching(_JOB_ID, "job_id", value, "16 lower-case hexadecimal digits")


def check_range(what: str, value: float, low: float, high: float) -> None:
    """Raise ProtocolError unless ``low <= value <= high``."""
    if not low <= value <= high:
        raise ProtocolError(f"{what} is {value!r}; expected {low} to {high}")


def _matching(pattern: re.Pattern[str], what: str, value: object, allowed: str) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise ProtocolError(f"{what} is {shown(value)}; expected {allowed}")
    return value


def shown(value: object) -> str:
    """Return ``value`` as a message shows it: 80 characters at most."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
