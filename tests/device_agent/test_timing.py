import time

import pytest

from device_agent.memory import peak_rss_bytes
from device_agent.protocol import MeasureSpec
from device_agent.timing import time_invokes, warm_up


def busy(duration_s):
    deadline = time.perf_counter() + duration_s
    while time.perf_counter() < deadline:
        pass


def test_each_invoke_is_timed_alone():
    invoke_ns = time_invokes(lambda: busy(0.0005), MeasureSpec(timing_s=0, min_invokes=20))
    assert len(invoke_ns) == 20
    assert invoke_ns.min() >= 500_000


def test_timing_goes_on_until_there_are_enough_and_long_enough():
    begin = time.perf_counter()
    assert len(time_invokes(lambda: busy(0.001), MeasureSpec(timing_s=0.1, min_invokes=5))) > 5
    assert time.perf_counter() - begin >= 0.1


def test_timing_ends_with_the_largest_number_of_invokes():
    assert len(time_invokes(lambda: None, MeasureSpec(timing_s=60, min_invokes=5, max_invokes=7))) == 7


def test_no_warm_up_is_none():
    assert warm_up(pytest.fail, 0) == 0


def test_warm_up_lasts_at_least_as_long_as_asked():
    begin = time.perf_counter()
    assert warm_up(lambda: busy(0.001), 0.05) > 0
    assert time.perf_counter() - begin >= 0.05


class Clock:
    """Time that passes only in invokes, so that nothing else on the machine is in it."""

    def __init__(self):
        self.now_ns = 0

    def perf_counter_ns(self):
        return self.now_ns


def test_warm_up_goes_on_while_invokes_become_faster_at_most_five_times_as_long(monkeypatch):
    clock, taken_ns = Clock(), 40_000_000

    def invoke():
        nonlocal taken_ns
        clock.now_ns += taken_ns
        taken_ns = taken_ns * 97 // 100

    monkeypatch.setattr("device_agent.timing.time", clock)
    warm_up(invoke, 0.1)
    assert 500_000_000 <= clock.now_ns < 540_000_000


def test_warm_up_ends_once_invokes_take_as_long_as_before(monkeypatch):
    clock = Clock()

    def invoke():
        clock.now_ns += 1_000_000

    monkeypatch.setattr("device_agent.timing.time", clock)
    assert 100 <= warm_up(invoke, 0.1) < 130


def test_the_peak_of_memory_is_that_of_the_process():
    assert peak_rss_bytes() > 10 << 20
