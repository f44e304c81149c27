"""The power pass: invokes while a thread reads the board's power rails, for the energy of one invoke."""

from __future__ import annotations

import threading
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
_FEWEST_READINGS = 10

ReadRails = Callable[[], tuple[Reading, ...]]


def run(request: Request) -> tuple[Power, dict[str, bytes]]:
    """Invoke for two seconds, or as long as a timed block if that is more, and return power and energy."""
    session = open_session(request, request.spec.models[request.block.model].batch)
    invoke_first(session)
    root = Path(request.root)
    with failing_as("invoke"):
        duration_s = max(_SHORTEST_S, request.spec.measure.timing_s)
        return measure_power(session.model.invoke, duration_s, lambda: read_rails(root)), {}


def measure_power(invoke: Callable[[], None], duration_s: float, read: ReadRails) -> Power:
    """Invoke for at least ``duration_s``, and until the rails were read ten times, by a thread: here nothing is timed.

    The energy of an invoke is mean power times duration by invokes: the board's whole consumption, idle share included.
    """
    meter, invokes, begin_s = _Meter(read), 0, time.monotonic()
    now_s = begin_s
    with meter:
        while now_s - begin_s < duration_s or (meter.readings < _FEWEST_READINGS and meter.alive):
            invoke()
            invokes += 1
            now_s = time.monotonic()
    rails = meter.means_w()
    mean_w = total_w(rails) or 0.0
    problem = "" if rails else "no power rail answered"
    return Power(invokes, now_s - begin_s, rails, mean_w, mean_w * (now_s - begin_s) / invokes * 1000, problem)


class _Meter:
    """Reads the rails again and again, and averages each over the times that it answered."""

    def __init__(self, read: ReadRails) -> None:
        self._read = read
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.readings = 0

    def __enter__(self) -> _Meter:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def alive(self) -> bool:
        """Whether more readings can be waited for."""
        return self._thread.is_alive()

    def means_w(self) -> tuple[Reading, ...]:
        """Return the mean of each rail."""
        return tuple(Reading(name, total / self._counts[name]) for name, total in self._sums.items())

    def _run(self) -> None:
        # The first reading comes after a pause: before it the board was idle.
        while not self._ended.wait(_EVERY_S):
            for rail in self._read():
                self._sums[rail.name] = self._sums.get(rail.name, 0.0) + rail.value
                self._counts[rail.name] = self._counts.get(rail.name, 0) + 1
            self.readings += 1
