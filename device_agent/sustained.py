"""The sustained pass: invokes without a pause, minute by minute, to see what heat makes of the first one's figure."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from device_agent.blocks import Request
from device_agent.protocol import Sustained, SustainedMinute
from device_agent.sensors import Moment, hottest_c, read_moment
from device_agent.sensors.throttling import throttled_now
from device_agent.session import failing_as, open_session
from device_agent.timing import invoke_first, without_gc

_MINUTE_S = 60.0
# 2^20 times of 8 bytes: a model of less than 60 µs has its later invokes of a minute run, but not recorded.
_MOST_RECORDED = 1 << 20


def run(request: Request) -> tuple[Sustained, dict[str, bytes]]:
    """Invoke for as long as asked and return what each minute was like, the board read between minutes."""
    model = request.spec.models[request.block.model]
    session = open_session(request, model.batch)
    invoke_first(session)
    with failing_as("invoke"), without_gc():
        invoke, root = session.model.invoke, Path(request.root)
        start_c = hottest_c(root)
        found = minutes(invoke, request.spec.measure.sustained_s, lambda: read_moment(root))
        return Sustained(tuple(found), start_c), {}


def minutes(
    invoke: Callable[[], None], duration_s: float, read: Callable[[], Moment], minute_s: float = _MINUTE_S
) -> Iterator[SustainedMinute]:
    """Yield each minute of ``duration_s``, the last one shorter where it does not divide."""
    taken = np.zeros(_MOST_RECORDED, np.int64)
    end_s, minute = time.monotonic() + duration_s, 0
    while (left_s := end_s - time.monotonic()) > 0 or not minute:
        minute += 1
        invokes = _invoke_for(invoke, min(minute_s, max(left_s, 0.0)), taken)
        moment = read()
        yield SustainedMinute(
            minute=minute,
            invokes=invokes,
            p50_ns=int(np.median(taken[: min(invokes, len(taken))])),
            temperature_c=moment.temperature_c,
            clock_mhz=moment.clock_mhz,
            throttled=throttled_now(moment.throttle_bits),
        )


def _invoke_for(invoke: Callable[[], None], duration_s: float, taken: NDArray[np.int64]) -> int:
    clock, most = time.perf_counter_ns, len(taken)
    deadline, count, end = clock() + int(duration_s * 1e9), 0, 0
    while not count or end < deadline:
        begin = clock()
        invoke()
        end = clock()
        if count < most:
            taken[count] = end - begin
        count += 1
    return count
