"""What disturbs a timed block, and what does not."""

import hashlib
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest

from device_agent.protocol import ConditionSpec, encode, to_json
from device_agent.sensors import Moment, conditions_between, read_moment

QUIET = Moment(
    monotonic_s=100.0,
    own_cpu_s=5.0,
    busy_s=1000.0,
    stolen_s=0.0,
    swapped_pages=7,
    temperature_c=60.0,
    clock_mhz=1500.0,
    max_clock_mhz=1500.0,
    throttle_bits=0,
    core_throttles=3,
)
ALL = ConditionSpec(max_temperature_c=80.0, max_other_cpus=0.5, min_clock_share=0.9)
NOTHING = ConditionSpec(max_temperature_c=None, max_other_cpus=None, min_clock_share=None)
SPIN = "import time\nwhile time.process_time() < {}: pass"


def later(**changes):
    """A moment 10 s after ``QUIET`` in which this process kept one core busy, and ``changes``."""
    return replace(QUIET, **{"monotonic_s": 110.0, "own_cpu_s": 15.0, "busy_s": 1010.0, **changes})


def disturbances(before=QUIET, after=None, spec=ALL):
    return conditions_between(before, after or later(), spec).disturbances


def test_a_quiet_block_is_not_disturbed_and_has_its_readings():
    conditions = conditions_between(QUIET, later(temperature_c=65.0, clock_mhz=1400.0), ALL)
    assert conditions.disturbances == ()
    assert (conditions.temperature_before_c, conditions.temperature_after_c) == (60.0, 65.0)
    assert (conditions.clock_before_mhz, conditions.clock_after_mhz, conditions.other_cpus) == (1500.0, 1400.0, 0.0)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ({"temperature_c": 80.5}, {}, "temperature before the block is 80.5 C; at most 80.0 C is allowed"),
        ({}, {"temperature_c": 83.24}, "temperature after the block is 83.2 C; at most 80.0 C is allowed"),
        ({}, {"busy_s": 1017.5}, "others kept 0.75 cores busy; at most 0.50 is allowed"),
        (
            {},
            {"busy_s": 1017.5, "stolen_s": 6.0},
            "others kept 0.75 cores busy (0.60 of them the hypervisor); at most 0.50 is allowed",
        ),
        (
            {},
            {"clock_mhz": 600.0},
            "clock after the block is 600 MHz, 0.40 of the highest (1500 MHz); at least 0.90 is expected",
        ),
        ({"throttle_bits": 1}, {}, "the firmware reports under-voltage before the block; none is allowed"),
        (
            {},
            {"throttle_bits": 0x80008},
            "the firmware reports soft temperature limit after the block; none is allowed",
        ),
        ({}, {"throttle_bits": 0x20000}, "the firmware reports frequency capped during the block; none is allowed"),
        ({}, {"core_throttles": 5}, "cores throttled themselves 2 times during the block; 0 are allowed"),
        ({}, {"swapped_pages": 19}, "12 pages were swapped during the block; 0 are allowed"),
    ],
)
def test_a_disturbance_says_what_it_was_and_what_is_allowed(before, after, message):
    assert disturbances(replace(QUIET, **before), later(**after)) == (message,)


@pytest.mark.parametrize(
    ("before", "after", "names"),
    [
        (0x50000, 0x50000, []),
        (0x50000, 0x70000, ["frequency capped during"]),
        (0x10001, 0x10001, ["under-voltage before", "under-voltage after"]),
        (0x10000, 0x10001, ["under-voltage after"]),
        (0x00000, 0xC0000, ["throttled during", "soft temperature limit during"]),
        (0x50000, 0x00000, []),
        (None, 0x50000, []),
        (0x00000, None, []),
    ],
)
def test_what_the_firmware_saw_before_the_block_says_nothing_of_it(before, after, names):
    found = disturbances(replace(QUIET, throttle_bits=before), later(throttle_bits=after))
    assert [message.split(" reports ")[1].split(" the block")[0] for message in found] == names


def test_a_limit_itself_is_allowed():
    at_limits = later(temperature_c=80.0, busy_s=1015.0, clock_mhz=1350.0)
    assert disturbances(after=at_limits) == ()


def test_limits_of_none_are_not_looked_at_but_throttling_and_swapping_are():
    bad = {"temperature_c": 99.0, "busy_s": 1040.0, "clock_mhz": 100.0}
    assert disturbances(after=later(**bad), spec=NOTHING) == ()
    assert len(disturbances(after=later(**bad), spec=ALL)) == 3
    always = later(throttle_bits=4, core_throttles=4, swapped_pages=8)
    assert len(disturbances(after=always, spec=NOTHING)) == 3


def test_a_board_that_says_nothing_is_not_disturbed():
    conditions = conditions_between(Moment(100.0, 5.0), Moment(110.0, 15.0), ALL)
    assert conditions.disturbances == ()
    assert conditions.other_cpus is None


def test_a_block_too_short_to_judge_has_no_other_cpus():
    short = later(monotonic_s=100.15, own_cpu_s=5.0, busy_s=1000.5)
    conditions = conditions_between(QUIET, short, ALL)
    assert (conditions.other_cpus, conditions.disturbances) == (None, ())
    assert conditions_between(QUIET, replace(short, monotonic_s=100.25), ALL).other_cpus == pytest.approx(2.0)


def test_others_are_never_less_than_none():
    assert conditions_between(QUIET, later(busy_s=1009.9), ALL).other_cpus == 0.0


def test_other_processes_on_all_cores_are_seen():
    cores, spun_s = os.cpu_count(), 0.4
    before = read_moment()
    children = [subprocess.Popen([sys.executable, "-S", "-c", SPIN.format(spun_s)]) for _ in range(cores)]
    assert [child.wait(60) for child in children] == [0] * cores
    after = read_moment()
    conditions = conditions_between(before, after, replace(NOTHING, max_other_cpus=0.1))
    assert conditions.other_cpus * (after.monotonic_s - before.monotonic_s) > 0.9 * cores * spun_s
    assert any("cores busy" in message for message in conditions.disturbances)
    assert encode(to_json(conditions))


def test_own_threads_on_all_cores_are_not_counted_as_others():
    cores, spun_s, block = os.cpu_count(), 0.6, bytes(1 << 20)
    before = read_moment()

    def spin():
        # Hashing leaves the interpreter's lock, so that the threads do run side by side.
        while time.process_time() - before.own_cpu_s < spun_s:
            hashlib.sha256(block)

    threads = [threading.Thread(target=spin) for _ in range(cores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    after = read_moment()
    wall_s, own_s = after.monotonic_s - before.monotonic_s, after.own_cpu_s - before.own_cpu_s
    others_s = conditions_between(before, after, NOTHING).other_cpus * wall_s
    # However busy this machine is with others: they cannot have had what these threads had.
    assert own_s >= spun_s
    assert others_s <= cores * wall_s - own_s + 0.2


def test_a_moment_is_cheap_to_take():
    read_moment()
    begin = time.process_time()
    for _ in range(10):
        read_moment()
    assert (time.process_time() - begin) / 10 < 0.02
