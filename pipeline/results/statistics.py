"""From raw samples to the numbers that are reported: medians over processes and their 95 % intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.intervals import CONFIDENCE, median_interval
from device_agent.protocol import Measurement, Score, TimingBlock
from pipeline.results.record import Estimate, Numbers

PERCENTILE_CONFIDENCE = 0.99

Samples = Mapping[str, NDArray[Any]]


def numbers(
    measurement: Measurement, samples: Samples, baseline_score: float | None, emulated: bool = False
) -> Numbers:
    """Return what is reported of ``measurement``.

    Args:
        measurement: one model, timed in several fresh processes and scored once.
        samples: file name → the raw values: int64 nanoseconds for a block, one value a sample for the score.
        baseline_score: the score of the variant that the change is counted from; None for the baseline itself.
        emulated: whether the board is, so that its times are none.

    Returns:
        p50 as the median over processes of each process's own median; p90 and p99 as the median over processes of each
        process's early-stopping estimate, None unless every process has the samples for it.

    Raises:
        KeyError: if ``samples`` lacks a file that ``measurement`` names.
    """
    score = _score(measurement.score, samples)
    change_pp = None if baseline_score is None else 100 * (score.value - baseline_score)
    peak_rss_bytes = max(block.peak_rss_bytes for block in measurement.blocks)
    if emulated:
        return Numbers(score, change_pp, None, None, None, None, peak_rss_bytes)
    blocks = measurement.blocks
    return Numbers(
        score=score,
        score_change_pp=change_pp,
        p50_ns=over_processes([float(np.median(samples[block.file_name])) for block in blocks]),
        p90_ns=_tail(blocks, samples, 0.90),
        p99_ns=_tail(blocks, samples, 0.99),
        load_ns=_median(blocks, lambda block: block.load_ns),
        first_invoke_ns=_median(blocks, lambda block: block.first_invoke_ns),
        peak_rss_bytes=peak_rss_bytes,
    )


def over_processes(values: Sequence[float]) -> Estimate:
    """Return the median of one value a process, and its 95 % interval over the processes, the agent's own.

    One process alone has no interval.
    """
    interval = median_interval(values)
    return Estimate(float(np.median(values)), *(interval or ()))


def proportion(successes: int, trials: int) -> Estimate:
    """Return ``successes / trials`` and its 95 % interval by Wilson's score method (JASA 22, 1927)."""
    from scipy import stats

    interval = stats.binomtest(successes, trials).proportion_ci(confidence_level=CONFIDENCE, method="wilson")
    return Estimate(successes / trials, float(interval.low), float(interval.high))


def _score(score: Score, samples: Samples) -> Estimate:
    each = samples[score.file_name]
    if len(each) == 0 or not np.isin(each, (0, 1)).all():
        return Estimate(score.value)
    return proportion(int(np.count_nonzero(each)), len(each))


def early_stopping_percentile(values: NDArray[Any], share: float) -> float | None:
    """Return an estimate of a percentile that is too low in at most 1 % of all cases, None with too few values for one.

    As MLPerf LoadGen does it (mlcommons/inference, loadgen/early_stopping.cc and results.cc, SingleStream): of n values
    let t be the largest number for which n draws, each above the true percentile with probability 1 - share, have at
    most t above it with probability at most 1 %; the estimate is the t-th largest value. It takes 64 values for the
    90th, 662 for the 99th percentile.
    """
    from scipy import stats

    above = int(stats.binom.ppf(1 - PERCENTILE_CONFIDENCE, len(values), 1 - share))
    while above >= 1 and stats.binom.cdf(above, len(values), 1 - share) > 1 - PERCENTILE_CONFIDENCE:
        above -= 1
    return float(np.partition(values, -above)[-above]) if above >= 1 else None


def _tail(blocks: tuple[TimingBlock, ...], samples: Samples, share: float) -> Estimate | None:
    found = [early_stopping_percentile(samples[block.file_name], share) for block in blocks]
    known = [value for value in found if value is not None]
    return over_processes(known) if known and len(known) == len(found) else None


def _median(blocks: tuple[TimingBlock, ...], of: Callable[[TimingBlock], int]) -> float:
    return float(np.median([of(block) for block in blocks]))
