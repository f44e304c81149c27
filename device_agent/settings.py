"""What a daemon is told when it is started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

DEFAULT_QUOTA_MIB = 4096


@dataclass(frozen=True)
class Settings:
    """Which Python has which runtime, how much room blobs may take, and below which folder the board is read."""

    pythons: Mapping[str, str]
    quota_mib: int = DEFAULT_QUOTA_MIB
    root: Path = Path("/")
