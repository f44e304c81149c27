"""The power pass: invokes while the board's power rails are read now and then, for the energy of one invoke."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from device_agent.blocks import Request
from device_agent.protocol import Power, Reading
from device_agent.sensors import read_rails, total_w
from device_agent.session import failing_as, open_session
from device_agent.timing import invoke_first

_SHORTEST_S = 2.0
_EVERY_S = 0.1


def run(request: Request) -> tuple[Power, dict[str, bytes]]:
    """Invoke for two seconds, or as long as a timed block if that is more, and return power and energy."""
    session = open_session(request, request.spec.models[request.block.model].batch)
    invoke_first(session)
    root = Path(request.root)
    with failing_as("invoke"):
        duration_s = max(_SHORTEST_S, request.spec.measure.timing_s)
        return measure_power(session.model.invoke, duration_s, lambda: read_rails(root)), {}


def measure_power(invoke: Callable[[], None], duration_s: float, read: Callable[[], tuple[Reading, ...]]) -> Power:
    """Invoke for ``duration_s`` and read the rails ten times a second, between invokes: here nothing is timed.

    The energy of an invoke is mean power times duration by invokes: the board's whole consumption, idle share included.
    """
    sums: dict[str, float] = {}
    readings, invokes, begin = 0, 0, time.monotonic()
    now = next_reading = begin
    while now - begin < duration_s or not readings:
        if now >= next_reading:
            for rail in read():
                sums[rail.name] = sums.get(rail.name, 0.0) + rail.value
            readings += 1
            next_reading = now + _EVERY_S
        invoke()
        invokes += 1
        now = time.monotonic()
    rails = tuple(Reading(name, total / readings) for name, total in sums.items())
    mean_w = total_w(rails) or 0.0
    return Power(invokes, now - begin, rails, mean_w, mean_w * (now - begin) / invokes * 1000)
