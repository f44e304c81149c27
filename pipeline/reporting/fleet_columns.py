"""What a report of several devices says of each device and of each variant, for the terminal, Markdown and HTML."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.reporting import format
from pipeline.reporting.columns import FAILED, INVALID, VALID, Cell
from pipeline.results.comparison import EMULATED
from pipeline.results.fleet_record import DeviceOutcome
from pipeline.results.fleet_store import FleetRun
from pipeline.results.record import RunRecord, VariantRecord

MISSED = "MISSED"


@dataclass(frozen=True)
class DeviceColumn:
    """One column of the table of devices; ``cell`` is given the outcome, and the device's record where there is one."""

    key: str
    heading: str
    cell: Callable[[DeviceOutcome, RunRecord | None], Cell]
    numeric: bool = True


@dataclass(frozen=True)
class FleetColumn:
    """One column of the table of variants over all devices; ``cell`` is given the variant's name."""

    key: str
    heading: str
    cell: Callable[[str], Cell]
    numeric: bool = True


def device_columns(metric: str) -> tuple[DeviceColumn, ...]:
    """Return the columns of the table of devices; ``metric`` heads the score of what may ship there."""
    return (
        DeviceColumn("device", "device", lambda outcome, run: Cell(outcome.device, "", outcome.device), numeric=False),
        DeviceColumn("status", "status", device_status, numeric=False),
        DeviceColumn("board", "board", _board, numeric=False),
        DeviceColumn("chosen", "may ship", lambda outcome, run: Cell(outcome.chosen or format.NONE), numeric=False),
        DeviceColumn("p50", "p50", _p50),
        DeviceColumn("score", format.metric(metric), _score),
        DeviceColumn("valid", "VALID", _valid),
    )


def fleet_columns(fleet: FleetRun) -> tuple[FleetColumn, ...]:
    """Return the columns of the table of variants over all devices that were measured."""

    def of(cell: Callable[[list[tuple[str, VariantRecord]]], Cell]) -> Callable[[str], Cell]:
        return lambda name: cell(_on_devices(fleet, name))

    return (
        FleetColumn("variant", "variant", lambda name: Cell(name, "", name), numeric=False),
        FleetColumn("ships", "may ship on", lambda name: _ships(fleet, name)),
        FleetColumn("raw", "raw size", of(_raw)),
        FleetColumn("gzip", "gzip size", of(_gzip)),
        FleetColumn("fastest", "fastest p50", of(lambda found: _extreme(found, min))),
        FleetColumn("slowest", "slowest p50", of(lambda found: _extreme(found, max))),
    )


def variant_names(fleet: FleetRun) -> list[str]:
    """Return the variants of all devices, each once."""
    return list(fleet.record.verdict.ships_on)


def failures(fleet: FleetRun) -> list[tuple[str, str, str]]:
    """Return the devices of which there is no record, as (name, kind, message)."""
    return [(o.device, o.failure.kind, o.failure.message) for o in fleet.record.devices if o.failure]


def device_status(outcome: DeviceOutcome, run: RunRecord | None = None) -> Cell:
    """Return VALID when a variant may ship there, MISSED, INVALID or FAILED when none does, and why."""
    if outcome.failure is not None:
        return Cell(FAILED, f"{outcome.failure.kind}: {format.one_line(outcome.failure.message)}", 3)
    reason = run.verdict.reason if run else ""
    if not outcome.valid:
        return Cell(INVALID, reason, 2)
    return Cell(VALID, "", 0) if outcome.chosen else Cell(MISSED, reason, 1)


def _board(outcome: DeviceOutcome, run: RunRecord | None) -> Cell:
    return Cell(run.device.model or run.device.machine) if run else Cell()


def _chosen(outcome: DeviceOutcome, run: RunRecord | None) -> VariantRecord | None:
    return next((variant for variant in run.variants if variant.name == outcome.chosen), None) if run else None


def _p50(outcome: DeviceOutcome, run: RunRecord | None) -> Cell:
    chosen = _chosen(outcome, run)
    if chosen is None or chosen.numbers is None:
        return Cell()
    p50 = chosen.numbers.p50_ns
    if p50 is None:
        return Cell(EMULATED)
    return Cell(format.duration(p50.value), format.duration_interval(p50), p50.value)


def _score(outcome: DeviceOutcome, run: RunRecord | None) -> Cell:
    chosen = _chosen(outcome, run)
    if chosen is None or chosen.numbers is None:
        return Cell()
    score = chosen.numbers.score
    return Cell(format.fraction(score.value), format.fraction_interval(score), score.value)


def _valid(outcome: DeviceOutcome, run: RunRecord | None) -> Cell:
    return Cell(f"{outcome.valid} of {outcome.variants}", "", outcome.valid) if run else Cell()


def _on_devices(fleet: FleetRun, name: str) -> list[tuple[str, VariantRecord]]:
    return [(device, v) for device, run in fleet.runs.items() for v in run.variants if v.name == name]


def _ships(fleet: FleetRun, name: str) -> Cell:
    on, measured = fleet.record.verdict.ships_on[name], len(fleet.runs)
    missing = [device for device in fleet.runs if device not in on]
    shown = ", ".join(missing[:3]) + (", …" if len(missing) > 3 else "")
    return Cell(f"{len(on)} of {measured}", f"not on {shown}" if missing and on else "", len(on))


def _raw(found: list[tuple[str, VariantRecord]]) -> Cell:
    sizes = [variant.artifact.size_bytes for _, variant in found if variant.artifact]
    return Cell(format.size(max(sizes)), "", max(sizes)) if sizes else Cell()


def _gzip(found: list[tuple[str, VariantRecord]]) -> Cell:
    sizes = [variant.artifact.gzip_bytes for _, variant in found if variant.artifact]
    return Cell(format.size(max(sizes)), "", max(sizes)) if sizes else Cell()


def _extreme(found: list[tuple[str, VariantRecord]], choose: Callable[..., tuple[float, str]]) -> Cell:
    """Return the least or the most p50 of VALID numbers, with the device that has it; emulated devices have none."""
    times = [(v.numbers.p50_ns.value, device) for device, v in found if v.valid and v.numbers and v.numbers.p50_ns]
    if not times:
        return Cell(EMULATED if any(v.valid and v.numbers and v.numbers.emulated for _, v in found) else format.NONE)
    p50_ns, device = choose(times)
    return Cell(format.duration(p50_ns), device, p50_ns)
