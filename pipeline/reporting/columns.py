"""What a report says of each variant, stated once: the terminal, Markdown and HTML choose from these columns."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.reporting import format
from pipeline.results.comparison import AS_FAST, EMULATED, FASTER, SLOWER
from pipeline.results.record import Estimate, Numbers, VariantRecord, Verdict
from pipeline.results.verdict import LIMITS, why_not_valid

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
    of, timed = _of_numbers, _of_times
    return (
        Column("variant", "variant", _variant, numeric=False),
        Column("status", "status", status, numeric=False),
        *_budget_column(verdict),
        Column("raw", "raw size", lambda v: _size(v.artifact.size_bytes) if v.artifact else Cell()),
        Column("gzip", "gzip size", lambda v: _size(v.artifact.gzip_bytes) if v.artifact else Cell()),
        Column("score", format.metric(metric), of(lambda n: _fraction(n.score))),
        Column("change", "change", _change),
        Column("p50", "p50", timed(lambda n: n.p50_ns)),
        Column("speed", "speed", _speed),
        Column("p90", "p90", timed(lambda n: n.p90_ns)),
        Column("p99", "p99", timed(lambda n: n.p99_ns)),
        Column("load", "load", timed(lambda n: _point(n.load_ns))),
        Column("first", "first inference", timed(lambda n: _point(n.first_invoke_ns))),
        Column("memory", "peak memory", of(lambda n: _memory(n.peak_rss_bytes))),
        Column("parity", "SNR", _parity),
        Column("runtime", "runtime", runtime, numeric=False),
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


def _of_numbers(cell: Callable[[Numbers], Cell]) -> Callable[[VariantRecord], Cell]:
    return lambda variant: cell(variant.numbers) if variant.numbers else Cell()


def _of_times(estimate: Callable[[Numbers], Estimate | None]) -> Callable[[VariantRecord], Cell]:
    def cell(found: Numbers) -> Cell:
        time_ns = estimate(found)
        return Cell(EMULATED if found.emulated else format.NONE) if time_ns is None else _time(time_ns)

    return _of_numbers(cell)


def _point(value_ns: float | None) -> Estimate | None:
    return None if value_ns is None else Estimate(value_ns)


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


def _change(variant: VariantRecord) -> Cell:
    points_pp = variant.numbers.score_change_pp if variant.numbers else None
    if points_pp is None:
        return Cell()
    compared = variant.comparison
    detail = "" if compared is None or compared.p_value is None else f"{compared.accuracy}, {_p(compared.p_value)}"
    return Cell(format.change(points_pp), detail, points_pp)


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def _speed(variant: VariantRecord) -> Cell:
    compared = variant.comparison
    if compared is None:
        return Cell()
    ratio = compared.time_ratio
    if ratio is None:
        return Cell(compared.speed)
    shown = ratio.inverse if compared.speed == FASTER else ratio
    text = {
        FASTER: f"{shown.value:.2f}× faster",
        SLOWER: f"{shown.value:.2f}× slower",
        AS_FAST: "as fast",
    }.get(compared.speed, "not shown")
    return Cell(text, format.ratio_interval(shown), ratio.value)


def _parity(variant: VariantRecord) -> Cell:
    outputs = variant.measurement.parity if variant.measurement else ()
    if not outputs:
        return Cell()
    found = [output.snr_db for output in outputs if output.snr_db is not None]
    largest = max(output.largest_difference for output in outputs)
    text, sort = (f"{min(found):.1f} dB", min(found)) if found else ("identical", math.inf)
    return Cell(text, f"largest difference {largest:.2g}" if found else "", sort)


def _time(estimate: Estimate) -> Cell:
    return Cell(format.duration(estimate.value), format.duration_interval(estimate), estimate.value)


def _memory(size_bytes: int) -> Cell:
    return Cell(format.memory(size_bytes), "", size_bytes)


def runtime(variant: VariantRecord) -> Cell:
    measured = variant.measurement
    if measured is None:
        return Cell()
    text = f"{measured.runtime} {measured.runtime_version}"
    return Cell(text, f"{measured.delegate}, {format.count(measured.threads, 'thread')}", text)


def _budget(variant: VariantRecord, verdict: Verdict) -> Cell:
    misses = verdict.misses.get(variant.name, ())
    if not misses:
        emulated = variant.numbers is not None and variant.numbers.emulated
        times = [line.name for line in verdict.budget if emulated and LIMITS[line.name].is_time]
        return Cell("meets it", f"{', '.join(times)} not judged" if times else "", 0)
    return Cell("missed", "; ".join(misses) if variant.valid else "", len(misses))
