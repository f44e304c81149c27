"""Which variant may ship on several devices: the rule, stated once.

Only variants that are VALID and meet the budget on every device that was measured are candidates. Each has a ratio on
each device: its p50 over that of the fastest candidate there, or 1 when it is not shown to be slower. The candidate
whose worst ratio is the least loses the least anywhere; of those within the smallest effect of it the smallest raw
flatbuffer is chosen, then the first by name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.reporting import format
from pipeline.results.comparison import SLOWER, speed_of, time_ratio
from pipeline.results.fleet_record import FleetVerdict
from pipeline.results.record import Artifact, RunRecord, VariantRecord


@dataclass(frozen=True)
class _Worst:
    """The device on which a candidate loses the most against the fastest there, and how much."""

    name: str
    size_bytes: int
    ratio: float
    device: str


def judge_fleet(records: Mapping[str, RunRecord], failed: Sequence[str], smallest_effect: float) -> FleetVerdict:
    """Return which variant may ship on all devices.

    Args:
        records: by device, of those that were measured.
        failed: the devices of which there is no record.
        smallest_effect: the relative difference in time below which two variants count as equally fast.
    """
    ships_on = _ships_on(records)
    candidates = [name for name, devices in ships_on.items() if len(devices) == len(records)]
    if not records:
        return FleetVerdict(None, f"no variant may ship: none of {_devices(len(failed))} was measured", ships_on)
    unknown = f"; nothing is known of {', '.join(failed)}" if failed else ""
    emulated = [device for device, record in records.items() if record.device.emulated]
    unknown += f"; no time was judged on {', '.join(emulated)}, emulated" if emulated else ""
    where = f"the {len(records)} of {_devices(len(records) + len(failed))} that were measured"
    where = where if failed else f"all {_devices(len(records))}"
    if not candidates:
        return FleetVerdict(None, f"no variant may ship on {where}: {_closest(records, ships_on)}{unknown}", ships_on)
    worst = {name: _worst(name, candidates, records, smallest_effect) for name in candidates}
    least = min(found.ratio for found in worst.values())
    equals = [found for found in worst.values() if found.ratio <= least * (1 + smallest_effect)]
    chosen = min(equals, key=lambda found: (found.size_bytes, found.name))
    reason = f"{chosen.name} may ship on {where}: {_why(chosen, len(candidates))}{unknown}"
    return FleetVerdict(chosen.name, reason, ships_on)


def _ships_on(records: Mapping[str, RunRecord]) -> dict[str, tuple[str, ...]]:
    names = dict.fromkeys(variant.name for record in records.values() for variant in record.variants)
    return {
        name: tuple(device for device, record in records.items() if not record.verdict.misses.get(name, ("",)))
        for name in names
    }


def _worst(name: str, candidates: Sequence[str], records: Mapping[str, RunRecord], smallest_effect: float) -> _Worst:
    ratios = {device: _ratio(name, candidates, record, smallest_effect) for device, record in records.items()}
    device = max(ratios, key=lambda device: ratios[device])
    sizes = [_artifact(_variant(record, name)).size_bytes for record in records.values()]
    return _Worst(name, max(sizes), ratios[device], device)


def _ratio(name: str, candidates: Sequence[str], record: RunRecord, smallest_effect: float) -> float:
    fastest = min((_variant(record, candidate) for candidate in candidates), key=_p50_ns)
    own = _variant(record, name)
    if record.device.emulated or own is fastest or own.measurement is None or fastest.measurement is None:
        return 1.0
    ratio = time_ratio(own.measurement, fastest.measurement)
    if ratio.low is None:
        return max(1.0, ratio.value)  # one pair shows nothing either way; the faster one is preferred all the same
    return ratio.value if speed_of(ratio, smallest_effect) == SLOWER else 1.0


def _variant(record: RunRecord, name: str) -> VariantRecord:
    return next(variant for variant in record.variants if variant.name == name)


def _artifact(variant: VariantRecord) -> Artifact:
    assert variant.artifact is not None
    return variant.artifact


def _p50_ns(variant: VariantRecord) -> float:
    # An emulated board has none, and nobody is faster there.
    return variant.numbers.p50_ns.value if variant.numbers and variant.numbers.p50_ns else math.inf


def _why(chosen: _Worst, candidates: int) -> str:
    if candidates == 1:
        return "the only one that meets the budget on each of them"
    of = f"of {candidates} variants that meet the budget on each of them"
    if chosen.ratio == 1.0:
        return f"{of} none is shown to be faster than it anywhere"
    return f"{of} it loses the least, {chosen.ratio:.2f} times the time of the fastest on {chosen.device}"


def _closest(records: Mapping[str, RunRecord], ships_on: Mapping[str, tuple[str, ...]]) -> str:
    name = max(ships_on, key=lambda variant: len(ships_on[variant]))
    device = next(device for device in records if device not in ships_on[name])
    miss = " and ".join(records[device].verdict.misses.get(name, ("it has none",)))
    return f"{name} may on {len(ships_on[name])} of them, but not on {device}: {format.one_line(miss)}"


def _devices(number: int) -> str:
    return format.count(number, "device")
