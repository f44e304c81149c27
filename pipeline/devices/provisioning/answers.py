"""What the installer answers, as types: each is checked as it is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from device_agent.layout import check_id
from device_agent.protocol import check_range, check_sha256

_MOST_BYTES = 1 << 50


@dataclass(frozen=True)
class Done:
    """An answer without content."""


@dataclass(frozen=True)
class PreparedPart:
    """What is there of one part: all of it, or how much was begun."""

    sha256: str
    is_here: bool
    part_bytes: int
    part_sha256: Optional[str]  # noqa: UP045  from_json reads this form

    def __post_init__(self) -> None:
        check_sha256("part", self.sha256)
        check_range("part_bytes", self.part_bytes, 0, _MOST_BYTES)


@dataclass(frozen=True)
class Prepared:
    """Of ``prepare``: what is there, and how much room on the disks of what is sent and of what is installed."""

    parts: tuple[PreparedPart, ...]
    incoming_free_bytes: int
    root_free_bytes: int
    same_disk: bool

    def __post_init__(self) -> None:
        check_range("incoming_free_bytes", self.incoming_free_bytes, 0, _MOST_BYTES)
        check_range("root_free_bytes", self.root_free_bytes, 0, _MOST_BYTES)


@dataclass(frozen=True)
class Installed:
    """Of ``install``; ``note`` says why the board does not start the agent by itself, where it does not."""

    release: str
    note: str
    unit: bool
    previous: Optional[str] = None  # noqa: UP045  from_json reads this form

    def __post_init__(self) -> None:
        check_id("release", self.release)


@dataclass(frozen=True)
class RolledBack:
    """Of ``roll-back``."""

    release: str

    def __post_init__(self) -> None:
        check_id("release", self.release)


@dataclass(frozen=True)
class Removed:
    """Of ``remove``."""

    removed: tuple[str, ...]
