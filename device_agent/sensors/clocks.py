"""Clocks of the processor's cores, from cpufreq's policies: the cores of one policy always share a clock."""

from __future__ import annotations

from pathlib import Path

from device_agent.protocol import Reading
from device_agent.sensors.files import as_integer, matching, read_integer, read_name


def read_clocks(root: Path = Path("/")) -> tuple[Reading, ...]:
    """Return the clock of each core that is online, in MHz."""
    readings = []
    for policy in _policies(root):
        clock_mhz = _mhz(policy / "scaling_cur_freq")
        if clock_mhz is not None:
            readings += [Reading(name, clock_mhz) for name in _cores(policy)]
    return tuple(readings)


def fastest_clock_mhz(root: Path = Path("/")) -> float | None:
    """Return the clock of the fastest core in MHz; None when none says."""
    return _highest(root, "scaling_cur_freq")


def max_clock_mhz(root: Path = Path("/")) -> float | None:
    """Return the highest clock that any core can have, in MHz; a power mode or governor may allow less."""
    return _highest(root, "cpuinfo_max_freq")


def read_governors(root: Path = Path("/")) -> tuple[str, ...]:
    """Return the distinct governors, in alphabetical order."""
    names = {read_name(policy / "scaling_governor") for policy in _policies(root)}
    return tuple(sorted(name for name in names if name))


def _policies(root: Path) -> list[Path]:
    return matching(root, "sys/devices/system/cpu/cpufreq/policy*")


def _highest(root: Path, file_name: str) -> float | None:
    clocks = (_mhz(policy / file_name) for policy in _policies(root))
    return max((clock for clock in clocks if clock is not None), default=None)


def _mhz(path: Path) -> float | None:
    khz = read_integer(path)
    return khz / 1000 if khz is not None and khz > 0 else None


def _cores(policy: Path) -> list[str]:
    numbers = (read_name(policy / "affected_cpus") or "").split()
    return [f"cpu{number}" for number in numbers if as_integer(number) is not None] or [policy.name]
