"""What a Raspberry Pi's firmware says of throttling.

Bits 0 to 3 are what is so now, bits 16 to 19 the same since boot (vcgencmd in Raspberry Pi's documentation). The file
in sysfs is deprecated, shows what the firmware last told the kernel, which asks every two seconds, and is missing on
the Raspberry Pi 5; the kernel's question also clears the bits since boot. So the firmware itself is asked first, which
takes milliseconds, and the file is for boards without vcgencmd.
"""

from __future__ import annotations

import re
from pathlib import Path

from device_agent.sensors.files import read_text
from device_agent.sensors.vcgencmd import ask_vcgencmd

_SYSFS = "sys/devices/platform/soc/soc:firmware/get_throttled"
_NAMES = ("under-voltage", "frequency capped", "throttled", "soft temperature limit")
_SINCE_BOOT = 16
_BITS = re.compile(r"(?:throttled=)?(?:0x)?([0-9a-fA-F]{1,8})")


def read_throttle_bits(root: Path = Path("/")) -> int | None:
    """Return the firmware's bits; None on boards without such firmware."""
    bits = _bits(ask_vcgencmd(root, "get_throttled"))
    return bits if bits is not None else _bits(read_text(root / _SYSFS))


def throttled_now(bits: int | None) -> tuple[str, ...]:
    """Name what ``bits`` say is so now."""
    return tuple(name for i, name in enumerate(_NAMES) if (bits or 0) >> i & 1)


def throttled_since_boot(bits: int | None) -> tuple[str, ...]:
    """Name what ``bits`` say has been so since boot."""
    return throttled_now((bits or 0) >> _SINCE_BOOT)


def throttled_between(before: int | None, after: int | None) -> tuple[str, ...]:
    """Name what has been so since boot in ``after`` and had not been in ``before``; nothing when one is unknown."""
    return () if before is None or after is None else throttled_since_boot(after & ~before)


def _bits(text: str | None) -> int | None:
    found = _BITS.fullmatch(text.strip()) if text else None
    return int(found[1], 16) if found else None
