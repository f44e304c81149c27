"""What the board is."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from device_agent.protocol import DeviceInfo
from device_agent.sensors.emulation import is_emulated
from device_agent.sensors.files import read_field, read_kib, read_name, read_text

# "vendor,device", as the Devicetree Specification (section 2.3.1) wants it.
_COMPATIBLE = re.compile(r"[A-Za-z0-9][\w.+-]*,[\w.+-]+", re.ASCII)
# What firmware says when nobody has filled the field in.
_UNFILLED = re.compile(r"(?i)to be filled.*|default string|system (product name|manufacturer)|none|unknown|not .*")


def read_device(root: Path = Path("/")) -> DeviceInfo:
    """Return the board's description from the files below ``root``; machine, cores and kernel are this system's."""
    system = os.uname()
    return DeviceInfo(
        model=_model(root),
        machine=system.machine,
        cores=os.cpu_count() or 1,
        ram_bytes=read_kib(root / "proc/meminfo", "MemTotal"),
        os=read_field(root / "etc/os-release", "PRETTY_NAME", "="),
        kernel=system.release,
        python=".".join(str(part) for part in sys.version_info[:3]),
        soc=_soc(root),
        emulated=is_emulated(root, system.machine),
    )


def _model(root: Path) -> str | None:
    cpuinfo = root / "proc/cpuinfo"
    return (
        read_name(root / "proc/device-tree/model")
        or read_field(cpuinfo, "Model", ":")
        or _dmi_model(root)
        or read_field(cpuinfo, "model name", ":")
    )


def _dmi_model(root: Path) -> str | None:
    vendor, product = (_filled(read_name(root / "sys/class/dmi/id" / name)) for name in ("sys_vendor", "product_name"))
    if product and vendor and not product.startswith(vendor):
        return f"{vendor} {product}"
    return product


def _filled(name: str | None) -> str | None:
    return None if name and _UNFILLED.fullmatch(name) else name


def _soc(root: Path) -> str | None:
    entries = (read_text(root / "proc/device-tree/compatible") or "").split("\0")
    names = [entry for entry in entries if _COMPATIBLE.fullmatch(entry)]
    # From the most specific to the most general: the board comes first, its SoC last.
    return names[-1] if len(names) > 1 else None
