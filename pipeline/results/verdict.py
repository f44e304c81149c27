"""Which variant may ship: the rule, stated once and applied to every run.

Only VALID variants count. Those whose point estimates meet every limit are candidates; the fastest by p50 leads, and
every candidate that is not shown to be slower, by paired blocks and the smallest effect, counts as equally fast. Of
these the smallest raw flatbuffer is chosen, then the first by name. On an emulated board no time is judged: neither a
limit on one, nor who is faster.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from device_agent.protocol import Measurement
from pipeline.errors import UsageError
from pipeline.reporting import format
from pipeline.results.comparison import SLOWER, SMALLEST_EFFECT, speed_of, time_ratio
from pipeline.results.record import BudgetLine, Numbers, VariantRecord, Verdict


@dataclass(frozen=True)
class Candidate:
    """A VALID variant, with nothing missing."""

    name: str
    metric: str
    size_bytes: int
    numbers: Numbers
    measurement: Measurement


@dataclass(frozen=True)
class Limit:
    """What one budget key limits: how a reader calls it, its unit, and a candidate's value in that unit."""

    label: str
    unit: str
    value: Callable[[Candidate], float | None]
    is_time: bool = False


LIMITS = {
    "accuracy_drop_pp": Limit("accuracy drop", "pp", lambda candidate: _drop_pp(candidate.numbers)),
    "size_kib": Limit("size", "KiB", lambda candidate: candidate.size_bytes / format.KIB),
    "p50_ms": Limit("p50", "ms", lambda candidate: _p50_ns(candidate) / 1e6, is_time=True),
    "peak_memory_mib": Limit("peak memory", "MiB", lambda candidate: candidate.numbers.peak_rss_bytes / format.MIB),
}


def judge(
    variants: Sequence[VariantRecord],
    budget: Sequence[BudgetLine],
    baseline: str,
    smallest_effect: float = SMALLEST_EFFECT,
) -> Verdict:
    """Return which of ``variants`` may ship by this module's rule, and what the others miss.

    Raises:
        UsageError: if ``budget`` has a key that is not in ``LIMITS``.
    """
    _check_keys(budget)
    misses = {variant.name: _misses(variant, budget, baseline) for variant in variants}
    meeting = [found for found in map(_candidate, variants) if found and not misses[found.name]]
    if not meeting:
        return Verdict(tuple(budget), misses, None, _why_none(variants, misses, budget))
    equals = _equally_fast(meeting, smallest_effect)
    chosen = min(equals, key=lambda candidate: (candidate.size_bytes, candidate.name))
    reason = f"{chosen.name} may ship: {_why(chosen, equals, len(meeting), len(variants), bool(budget))}"
    if chosen.numbers.emulated:
        reason += _not_judged(budget)
    return Verdict(tuple(budget), misses, chosen.name, reason)


def why_not_valid(variant: VariantRecord) -> tuple[str, ...]:
    """Return why the numbers of ``variant`` may not be used; empty for a VALID one."""
    if variant.failure is not None:
        return (f"{variant.failure.kind}: {format.one_line(variant.failure.message)}",)
    if variant.invalid_reasons:
        return variant.invalid_reasons
    return () if variant.valid and variant.artifact else ("not measured",)


def _check_keys(budget: Sequence[BudgetLine]) -> None:
    unknown = [line.name for line in budget if line.name not in LIMITS]
    if unknown:
        raise UsageError(f'unknown budget "{unknown[0]}"; known: {", ".join(LIMITS)}')


def _misses(variant: VariantRecord, budget: Sequence[BudgetLine], baseline: str) -> tuple[str, ...]:
    candidate = _candidate(variant)
    if candidate is None:
        return why_not_valid(variant)
    found = [_miss(candidate, line, baseline) for line in _judged(candidate, budget)]
    return tuple(miss for miss in found if miss)


def _judged(candidate: Candidate, budget: Sequence[BudgetLine]) -> list[BudgetLine]:
    return [line for line in budget if not (candidate.numbers.emulated and LIMITS[line.name].is_time)]


def _not_judged(budget: Sequence[BudgetLine]) -> str:
    times = [line.name for line in budget if LIMITS[line.name].is_time]
    limits = f", and {' and '.join(times)} of the budget neither" if times else ""
    return f"; the board is emulated, so no time was judged{limits}"


def _candidate(variant: VariantRecord) -> Candidate | None:
    measured = variant.measurement
    if why_not_valid(variant) or variant.artifact is None or variant.numbers is None or measured is None:
        return None
    return Candidate(variant.name, measured.score.metric, variant.artifact.size_bytes, variant.numbers, measured)


def _miss(candidate: Candidate, line: BudgetLine, baseline: str) -> str | None:
    limit = LIMITS[line.name]
    value = limit.value(candidate)
    if value is None and candidate.name == baseline:
        value = 0.0
    if value is None:
        return f"{limit.label} is unknown: the baseline {baseline} has no score"
    if value <= line.limit or math.isclose(value, line.limit, rel_tol=1e-9):
        return None
    return f"{limit.label} {_above(value, line.limit)} {limit.unit} > {_plain(line.limit)} {limit.unit}"


def _p50_ns(candidate: Candidate) -> float:
    # Nobody asks for it on an emulated board; one without a time would be the slowest.
    return candidate.numbers.p50_ns.value if candidate.numbers.p50_ns else math.inf


def _drop_pp(numbers: Numbers) -> float | None:
    return None if numbers.score_change_pp is None else -numbers.score_change_pp


def _above(value: float, limit: float) -> str:
    """Return ``value`` with as many decimals as bring it within 1 % and show that it is above ``limit``."""
    for decimals in range(1, 17):
        rounded = round(value, decimals)
        if rounded > limit and math.isclose(rounded, value, rel_tol=0.01):
            return f"{rounded:,.{decimals}f}".rstrip("0").rstrip(".")
    return repr(value)


def _plain(limit: float) -> str:
    return repr(limit).removesuffix(".0")


def _equally_fast(candidates: Sequence[Candidate], smallest_effect: float) -> list[Candidate]:
    if any(candidate.numbers.emulated for candidate in candidates):
        return list(candidates)
    leader = min(candidates, key=_p50_ns)
    return [found for found in candidates if not _is_slower(found, leader, smallest_effect)]


def _is_slower(candidate: Candidate, leader: Candidate, smallest_effect: float) -> bool:
    ratio = time_ratio(candidate.measurement, leader.measurement)
    if ratio.low is None:
        # One pair shows nothing; to prefer the one that took longer would be odd all the same.
        return ratio.value > 1 + smallest_effect
    return speed_of(ratio, smallest_effect) == SLOWER


def _why(chosen: Candidate, equals: Sequence[Candidate], meeting: int, variants: int, budget: bool) -> str:
    group = "that meet the budget" if budget else "with VALID numbers (no budget is set)"
    if meeting == 1:
        one = "that meets the budget" if budget else "with VALID numbers (no budget is set)"
        return f"the only one of {format.count(variants, 'variant')} {one}, with {_figures(chosen)}"
    if len(equals) == 1:
        return f"the fastest of {meeting} variants {group}, with {_figures(chosen)}"
    if chosen.numbers.emulated:
        return f"the smallest of {meeting} variants {group}, with {_figures(chosen)}"
    fast = "all equally fast" if len(equals) == meeting else f"{len(equals)} equally fast at the front"
    return (
        f"the smallest of the equally fast, with {_figures(chosen)}; "
        f"of {meeting} variants {group}, {fast}: none is shown to be slower"
    )


def _figures(candidate: Candidate) -> str:
    numbers = candidate.numbers
    score = f"{format.metric(candidate.metric)} {format.fraction(numbers.score.value)}"
    if numbers.score_change_pp is not None:
        score += f" ({format.change(numbers.score_change_pp)})"
    time = "" if numbers.p50_ns is None else f"p50 {format.duration(numbers.p50_ns.value)}, "
    return f"{time}{format.size(candidate.size_bytes)} and {score}"


def _excess(candidate: Candidate, budget: Sequence[BudgetLine]) -> float:
    """Return how many times a limit the worst value is; infinite where a limit of 0 is missed or a value unknown."""
    values = ((LIMITS[line.name].value(candidate), line.limit) for line in _judged(candidate, budget))
    return max(math.inf if value is None or limit <= 0 else value / limit for value, limit in values)


def _why_none(
    variants: Sequence[VariantRecord], misses: dict[str, tuple[str, ...]], budget: Sequence[BudgetLine]
) -> str:
    measured = [found for found in map(_candidate, variants) if found]
    if not variants:
        return "no variant may ship: the run has none"
    if not measured:
        first = variants[0].name
        return f"no variant may ship: none of {len(variants)} is VALID ({first}: {misses[first][0]})"
    closest = min(measured, key=lambda candidate: (len(misses[candidate.name]), _excess(candidate, budget)))
    return f"no variant meets the budget: {closest.name} comes closest and misses {' and '.join(misses[closest.name])}"
