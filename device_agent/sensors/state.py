"""The board at one moment, in full: for the beginning and the end of a job, and for who asks how the board is."""

from __future__ import annotations

import time
from pathlib import Path

from device_agent import log
from device_agent.protocol import BoardState, ConditionSpec, DeviceState
from device_agent.sensors.busiest import busiest_between, cpu_times_s
from device_agent.sensors.clocks import max_clock_mhz, read_clocks, read_governors
from device_agent.sensors.conditions import conditions_between
from device_agent.sensors.files import as_decimal, read_kib, read_text
from device_agent.sensors.moment import read_moment
from device_agent.sensors.power_mode import read_power_mode
from device_agent.sensors.rails import read_rails
from device_agent.sensors.temperatures import read_temperatures
from device_agent.sensors.throttling import read_throttle_bits, throttled_now, throttled_since_boot

_LOOK_S = 1.0


def read_state(root: Path = Path("/")) -> BoardState:
    """Return the state of the board from the files below ``root``."""
    bits = read_throttle_bits(root)
    return BoardState(
        utc=log.utc_now(),
        temperatures_c=read_temperatures(root),
        clocks_mhz=read_clocks(root),
        max_clock_mhz=max_clock_mhz(root),
        governors=read_governors(root),
        throttled_now=throttled_now(bits),
        throttled_since_boot=throttled_since_boot(bits),
        power_mode=read_power_mode(root),
        rails_w=read_rails(root),
        load_1min=as_decimal((read_text(root / "proc/loadavg") or "").partition(" ")[0]),
        swap_used_bytes=_swap_used_bytes(root),
    )


def read_device_state(root: Path = Path("/")) -> DeviceState:
    """Return the state of the board and what else it is busy with, over a second of doing nothing."""
    before, times_s = read_moment(root), cpu_times_s(root)
    time.sleep(_LOOK_S)
    after = read_moment(root)
    busiest = busiest_between(times_s, cpu_times_s(root), after.monotonic_s - before.monotonic_s, root)
    others = conditions_between(before, after, ConditionSpec()).other_cpus
    swap_bytes = read_kib(root / "proc/meminfo", "SwapTotal")
    tells_throttling = read_throttle_bits(root) is not None
    return DeviceState(read_state(root), time.time(), others, swap_bytes, busiest, tells_throttling)


def _swap_used_bytes(root: Path) -> int | None:
    meminfo = root / "proc/meminfo"
    total, free = read_kib(meminfo, "SwapTotal"), read_kib(meminfo, "SwapFree")
    return total - free if total is not None and free is not None and total >= free else None
