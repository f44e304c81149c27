"""What speaks against a timed block, from the board right before and right after it."""

from __future__ import annotations

from collections.abc import Iterator

from device_agent.protocol import BlockConditions, ConditionSpec
from device_agent.sensors.moment import Moment
from device_agent.sensors.throttling import throttled_between, throttled_now

# /proc/stat counts in steps of 10 ms on each core: over less time than this, one step is more than 0.05 cores.
_SHORTEST_JUDGED_S = 0.2
_MOST_DISTURBANCES = 4


def conditions_between(before: Moment, after: Moment, spec: ConditionSpec) -> BlockConditions:
    """Return the conditions of the block between two moments, with all that disturbs it by the limits of ``spec``.

    ``other_cpus`` is None for blocks under 0.2 s, over which /proc/stat is too coarse to judge.
    """
    others = _other_cpus(before, after)
    disturbances = (
        *_too_hot(before, after, spec.max_temperature_c),
        *_too_busy(before, after, others, spec.max_other_cpus),
        *_too_slow(after, spec.min_clock_share),
        *_throttled(before, after),
        *_grown(before.core_throttles, after.core_throttles, "cores throttled themselves {} times"),
        *_grown(before.swapped_pages, after.swapped_pages, "{} pages were swapped"),
    )
    return BlockConditions(
        temperature_before_c=before.temperature_c,
        temperature_after_c=after.temperature_c,
        clock_before_mhz=before.clock_mhz,
        clock_after_mhz=after.clock_mhz,
        other_cpus=others,
        # Of a board on which everything is wrong, a few are enough.
        disturbances=disturbances[:_MOST_DISTURBANCES],
    )


def _other_cpus(before: Moment, after: Moment) -> float | None:
    wall_s = after.monotonic_s - before.monotonic_s
    if before.busy_s is None or after.busy_s is None or wall_s < _SHORTEST_JUDGED_S:
        return None
    own_s = after.own_cpu_s - before.own_cpu_s
    # Below 0 by rounding: the process's own time is exact, that of the machine is not.
    return max(0.0, (after.busy_s - before.busy_s - own_s) / wall_s)


def _too_hot(before: Moment, after: Moment, limit_c: float | None) -> Iterator[str]:
    for when, moment in (("before", before), ("after", after)):
        if limit_c is not None and moment.temperature_c is not None and moment.temperature_c > limit_c:
            yield f"temperature {when} the block is {moment.temperature_c:.1f} C; at most {limit_c:.1f} C is allowed"


def _too_busy(before: Moment, after: Moment, others: float | None, limit: float | None) -> Iterator[str]:
    if limit is None or others is None or others <= limit:
        return
    stolen_s = (after.stolen_s or 0.0) - (before.stolen_s or 0.0)
    stolen = stolen_s / (after.monotonic_s - before.monotonic_s)
    by_hypervisor = f" ({stolen:.2f} of them the hypervisor)" if stolen >= 0.01 else ""
    yield f"others kept {others:.2f} cores busy{by_hypervisor}; at most {limit:.2f} is allowed"


def _too_slow(after: Moment, least_share: float | None) -> Iterator[str]:
    if least_share is None or after.clock_mhz is None or not after.max_clock_mhz:
        return
    share = after.clock_mhz / after.max_clock_mhz
    if share < least_share:
        yield (
            f"clock after the block is {after.clock_mhz:.0f} MHz, {share:.2f} of the highest "
            f"({after.max_clock_mhz:.0f} MHz); at least {least_share:.2f} is expected"
        )


def _throttled(before: Moment, after: Moment) -> Iterator[str]:
    ends = {"before": throttled_now(before.throttle_bits), "after": throttled_now(after.throttle_bits)}
    for when, names in ends.items():
        for name in names:
            yield f"the firmware reports {name} {when} the block; none is allowed"
    # Only what is new counts: since boot there may have been anything.
    for name in throttled_between(before.throttle_bits, after.throttle_bits):
        if name not in ends["before"] + ends["after"]:
            yield f"the firmware reports {name} during the block; none is allowed"


def _grown(before: int | None, after: int | None, what: str) -> Iterator[str]:
    if before is not None and after is not None and after > before:
        yield f"{what.format(after - before)} during the block; 0 are allowed"
