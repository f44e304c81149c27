"""The power mode of a Jetson."""

from __future__ import annotations

import re
from pathlib import Path

from device_agent.sensors.files import as_name, read_text

_STATUS = re.compile(r"\bpmode:([0-9]{1,4})\b")
_MODEL = re.compile(r"^\s*<\s*POWER_MODEL\s+ID=([0-9]{1,4})\s+NAME=(\S+)\s*>", re.MULTILINE)


def read_power_mode(root: Path = Path("/")) -> str | None:
    """Return the name that nvpmodel.conf gives to the mode that nvpmodel last set, or its number when there is none."""
    found = _STATUS.search(read_text(root / "var/lib/nvpmodel/status") or "")
    if not found:
        return None
    models = _MODEL.findall(read_text(root / "etc/nvpmodel.conf") or "")
    names = {int(number): as_name(name) for number, name in models}
    return names.get(int(found[1])) or str(int(found[1]))
