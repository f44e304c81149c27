"""The board right before or right after a timed block: what is cheap to read and tells whether the block counts."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from device_agent.sensors.clocks import fastest_clock_mhz, max_clock_mhz
from device_agent.sensors.files import as_integer, matching, read_field, read_integer, read_text
from device_agent.sensors.temperatures import hottest_c
from device_agent.sensors.throttling import read_throttle_bits

# proc(5): user, nice, system, idle, iowait, irq, softirq, steal; what follows is already in user and nice.
_BUSY = (0, 1, 2, 5, 6, 7)
_STEAL = 7


@dataclass(frozen=True)
class Moment:
    """A reading to be compared with another one; None where the board does not say.

    ``busy_s`` is the CPU time of all cores since boot in seconds, ``stolen_s`` the part of it that a hypervisor took
    away; ``own_cpu_s`` that of this process, all of its threads, without its children. ``swapped_pages`` were read from
    or written to swap since boot, ``core_throttles`` counts how often x86 cores throttled themselves.
    """

    monotonic_s: float
    own_cpu_s: float
    busy_s: float | None = None
    stolen_s: float | None = None
    swapped_pages: int | None = None
    temperature_c: float | None = None
    clock_mhz: float | None = None
    max_clock_mhz: float | None = None
    throttle_bits: int | None = None
    core_throttles: int | None = None


def read_moment(root: Path = Path("/")) -> Moment:
    """Return the board at this moment; not to be called while something is timed.

    It takes less than a millisecond, on a Raspberry Pi 5 a start of vcgencmd more; of two moments, that of the first
    counts as others' CPU time.
    """
    # First of all the clock: within milliseconds of idling, a governor lowers it.
    clock_mhz = fastest_clock_mhz(root)
    busy_s, stolen_s = _cpu_times(root)
    return Moment(
        monotonic_s=time.monotonic(),
        own_cpu_s=time.process_time(),
        busy_s=busy_s,
        stolen_s=stolen_s,
        swapped_pages=_swapped_pages(root),
        temperature_c=hottest_c(root),
        clock_mhz=clock_mhz,
        max_clock_mhz=max_clock_mhz(root),
        throttle_bits=read_throttle_bits(root),
        core_throttles=_core_throttles(root),
    )


def _cpu_times(root: Path) -> tuple[float | None, float | None]:
    name, *numbers = (read_text(root / "proc/stat") or "").partition("\n")[0].split() or [""]
    jiffies = [number for number in map(as_integer, numbers) if number is not None and number >= 0]
    # All zeros are what some containers show instead of the machine's times.
    if name != "cpu" or len(jiffies) <= _STEAL or len(jiffies) != len(numbers) or not any(jiffies):
        return None, None
    per_second = os.sysconf("SC_CLK_TCK")
    return sum(jiffies[i] for i in _BUSY) / per_second, jiffies[_STEAL] / per_second


def _swapped_pages(root: Path) -> int | None:
    read, written = (as_integer(read_field(root / "proc/vmstat", name, " ")) for name in ("pswpin", "pswpout"))
    return read + written if read is not None and written is not None else None


def _core_throttles(root: Path) -> int | None:
    files = matching(root, "sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/core_throttle_count")
    counts = [count for count in map(read_integer, files) if count is not None]
    return sum(counts) if counts else None
