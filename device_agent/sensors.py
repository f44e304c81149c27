"""What the board says of itself; every file is optional, and the root folder is an argument."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from device_agent.protocol import DeviceInfo


def read_device(root: Path = Path("/")) -> DeviceInfo:
    """Return the board's description from the files below ``root``."""
    memory_kib = _field(root / "proc/meminfo", "MemTotal", ":")
    system = os.uname()
    return DeviceInfo(
        model=_text(root / "proc/device-tree/model") or _field(root / "proc/cpuinfo", "model name", ":"),
        machine=system.machine,
        cores=os.cpu_count() or 1,
        ram_bytes=int(memory_kib.split()[0]) * 1024 if memory_kib else None,
        os=_field(root / "etc/os-release", "PRETTY_NAME", "="),
        kernel=system.release,
        python=".".join(str(part) for part in sys.version_info[:3]),
    )


def _text(path: Path) -> str | None:
    try:
        # Strings of the device tree end with a zero byte.
        return path.read_text(errors="replace").rstrip("\0\n") or None
    except OSError:
        return None


def _field(path: Path, name: str, separator: str) -> str | None:
    for line in (_text(path) or "").splitlines():
        key, _, value = line.partition(separator)
        if key.strip() == name:
            return value.strip().strip('"') or None
    return None
