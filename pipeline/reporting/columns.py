"""What a report says of each variant, stated once: the terminal, Markdown and HTML choose from these columns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.reporting import format
from pipeline.results.record import Estimate, Numbers, RunRecord, VariantRecord, Verdict
from pipeline.results.verdict import why_not_valid

VALID, INVALID, FAILED, NOT_MEASURED = "VALID", "INVALID", "FAILED", "not measured"


@dataclass(frozen=True)
class Cell:
    """One cell: its main text, a second line (an interval, a reason), and what it is sorted by."""

    text: str = format.NONE
    detail: str = ""
    sort: float | str | None = None

    def __str__(self) -> str:
        return f"{self.text} ({self.detail})" if self.detail else self.text


@dataclass(frozen=True)
class Column:
    """One column: ``key`` is its name in the code, ``heading`` the reader's."""

    key: str
    heading: str
    cell: Callable[[VariantRecord], Cell]
    numeric: bool = True


def columns(metric: str, verdict: Verdict | None = None) -> tuple[Column, ...]:
    """Return every column in a reader's order; ``metric`` heads the score, ``verdict`` adds the budget's column."""
    of = _of_numbers
    return (
        Column("variant", "variant", _variant, numeric=False),
        Column("status", "status", status, numeric=False),
        *_budget_column(verdict),
        Column("raw", "raw size", lambda v: _size(v.artifact.size_bytes) if v.artifact else Cell()),
        Column("gzip", "gzip size", lambda v: _size(v.artifact.gzip_bytes) if v.artifact else Cell()),
        Column("score", format.metric(metric), of(lambda n: _fraction(n.score))),
        Column("change", "change", of(lambda n: _change(n.score_change_pp))),
        Column("p50", "p50", of(lambda n: _time(n.p50_ns))),
        Column("p90", "p90", of(lambda n: _time(n.p90_ns) if n.p90_ns else Cell())),
        Column("load", "load", of(lambda n: _time(Estimate(n.load_ns)))),
        Column("first", "first inference", of(lambda n: _time(Estimate(n.first_invoke_ns)))),
        Column("memory", "peak memory", of(lambda n: _memory(n.peak_rss_bytes))),
        Column("runtime", "runtime", _runtime, numeric=False),
    )


def status(variant: VariantRecord) -> Cell:
    """Return VALID, or INVALID or FAILED with the reasons."""
    reasons = why_not_valid(variant)
    if not reasons:
        return Cell(VALID, "", 0)
    if variant.failure is not None:
        return Cell(FAILED, reasons[0], 2)
    if variant.numbers is None and not variant.invalid_reasons:
        return Cell(NOT_MEASURED, "", 3)
    return Cell(INVALID, "; ".join(reasons), 1)


def conditions(record: RunRecord) -> tuple[tuple[str, str], ...]:
    """Return what every number of ``record`` was measured on and under, as (label, text)."""
    lines = (
        (
            "device",
            f"{record.device_name} ({record.device.model or record.device.machine}), transport {record.transport}",
        ),
        ("processor", f"{record.device.machine}, {format.count(record.device.cores, 'core')}{_ram(record)}"),
        ("system", f"{record.device.os or 'unknown'}, kernel {record.device.kernel}, Python {record.device.python}"),
        ("runtime", ", ".join(_distinct(record, lambda v: str(_runtime(v))))),
        ("timing", ", ".join(_distinct(record, _timing))),
        ("samples", f"{record.samples:,} scored, from {record.data_source}"),
        ("host", ", ".join(f"{name} {value}" for name, value in record.host.items())),
        ("experiment", f"{record.experiment} ({record.experiment_file})"),
        ("run", f"{record.run_id}, {record.started_utc} to {record.finished_utc}"),
    )
    return tuple((label, text) for label, text in lines if text)


def reading(record: RunRecord) -> tuple[tuple[str, str], ...]:
    """Return how to read the numbers, as (term, explanation)."""
    return (
        (
            "p50, p90",
            "time of one inference alone, warmed up: the median over fresh processes of each one's own percentile, "
            "with a 95 % bootstrap interval over the processes; p90 only from 64 samples a process",
        ),
        (format.metric(record.metric), _meaning(record.metric)),
        ("change", f"difference to {record.baseline}, in percentage points (pp)"),
        ("raw, gzip", "the flatbuffer as it lies on the device, and compressed: pruning only shows in the second"),
        ("load, first inference", "opening the model, and the first run in a fresh process; never mixed into p50"),
        ("peak memory", "the most a process of this variant held, runtime and Python included"),
        (
            VALID,
            "timed in every process asked for and scored on every sample, with finite outputs; heat, clock and "
            "other load are not looked at yet. Other numbers are shown, but never chosen",
        ),
        (
            "verdict",
            "of the VALID variants within the budget the fastest by p50; where p50 intervals overlap, the smallest",
        ),
    )


def problems(record: RunRecord) -> tuple[tuple[str, str, str], ...]:
    """Return each variant that is not VALID, as (name, status, reasons)."""
    found = ((variant.name, status(variant)) for variant in record.variants)
    return tuple((name, cell.text, cell.detail) for name, cell in found if cell.text != VALID)


def _meaning(metric: str) -> str:
    if metric.startswith("top"):
        return "share of the samples that are right, with its 95 % Wilson interval"
    return "the score over all samples, in percent"


def _of_numbers(cell: Callable[[Numbers], Cell]) -> Callable[[VariantRecord], Cell]:
    return lambda variant: cell(variant.numbers) if variant.numbers else Cell()


def _variant(variant: VariantRecord) -> Cell:
    recipe = " → ".join(variant.steps)
    return Cell(variant.name, "" if recipe == variant.name else recipe, variant.name)


def _budget_column(verdict: Verdict | None) -> tuple[Column, ...]:
    if verdict is None or not verdict.budget:
        return ()
    return (Column("budget", "budget", lambda v: _budget(v, verdict), numeric=False),)


def _size(size_bytes: int) -> Cell:
    return Cell(format.size(size_bytes), "", size_bytes)


def _fraction(estimate: Estimate) -> Cell:
    return Cell(format.fraction(estimate.value), format.fraction_interval(estimate), estimate.value)


def _change(points_pp: float | None) -> Cell:
    return Cell() if points_pp is None else Cell(format.change(points_pp), "", points_pp)


def _time(estimate: Estimate) -> Cell:
    return Cell(format.duration(estimate.value), format.duration_interval(estimate), estimate.value)


def _memory(size_bytes: int) -> Cell:
    return Cell(format.memory(size_bytes), "", size_bytes)


def _runtime(variant: VariantRecord) -> Cell:
    measured = variant.measurement
    if measured is None:
        return Cell()
    text = f"{measured.runtime} {measured.runtime_version}"
    return Cell(text, format.count(measured.threads, "thread"), text)


def _budget(variant: VariantRecord, verdict: Verdict) -> Cell:
    misses = verdict.misses.get(variant.name, ())
    if not misses:
        return Cell("meets it", "", 0)
    return Cell("missed", "; ".join(misses) if variant.valid else "", len(misses))


def _ram(record: RunRecord) -> str:
    return f", {record.device.ram_bytes / 2**30:.1f} GiB of memory" if record.device.ram_bytes else ""


def _timing(variant: VariantRecord) -> str:
    blocks = variant.measurement.blocks if variant.measurement else ()
    if not blocks:
        return ""
    return f"{format.count(len(blocks), 'process')} a variant"


def _distinct(record: RunRecord, text: Callable[[VariantRecord], str]) -> list[str]:
    found = dict.fromkeys(text(variant) for variant in record.variants if variant.measurement)
    return [item for item in found if item]
