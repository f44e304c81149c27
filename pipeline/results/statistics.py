"""From raw samples to the numbers that are reported: medians over processes and their 95 % intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.protocol import Measurement, Score, TimingBlock
from pipeline.results.record import Estimate, Numbers

P90_MIN_SAMPLES = 64
CONFIDENCE = 0.95
BOOTSTRAP_RESAMPLES = 9999
BOOTSTRAP_SEED = 0

Samples = Mapping[str, NDArray[Any]]


def numbers(measurement: Measurement, samples: Samples, baseline_score: float | None) -> Numbers:
    """Return what is reported of ``measurement``.

    Args:
        measurement: one model, timed in several fresh processes and scored once.
        samples: file name → the raw values: int64 nanoseconds for a block, one value a sample for the score.
        baseline_score: the score of the variant that the change is counted from; None for the baseline itself.

    Returns:
        p50 and p90 as medians over processes of each process's own percentile. p90 is None unless every process has
        64 samples: below that MLPerf LoadGen's early stopping (mlcommons/inference, loadgen/early_stopping.cc) has no
        90th percentile to give at 99 % confidence.

    Raises:
        KeyError: if ``samples`` lacks a file that ``measurement`` names.
    """
    blocks = measurement.blocks
    score = _score(measurement.score, samples)
    return Numbers(
        score=score,
        score_change_pp=None if baseline_score is None else 100 * (score.value - baseline_score),
        p50_ns=_percentile(blocks, samples, 50),
        p90_ns=_percentile(blocks, samples, 90) if _p90_is_known(blocks, samples) else None,
        load_ns=_median(blocks, lambda block: block.load_ns),
        first_invoke_ns=_median(blocks, lambda block: block.first_invoke_ns),
        peak_rss_bytes=max(block.peak_rss_bytes for block in blocks),
    )


def over_processes(values: Sequence[float]) -> Estimate:
    """Return the median of one value a process, and its 95 % percentile-bootstrap interval over the processes.

    One process alone has no interval. The values are sorted first, so that their order cannot change the draw.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    point = float(np.median(ordered))
    if len(ordered) < 2:
        return Estimate(point)
    from scipy import stats

    drawn = stats.bootstrap(
        (ordered,),
        np.median,
        n_resamples=BOOTSTRAP_RESAMPLES,
        vectorized=True,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(BOOTSTRAP_SEED),
    ).confidence_interval
    return Estimate(point, float(drawn.low), float(drawn.high))


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


def _percentile(blocks: tuple[TimingBlock, ...], samples: Samples, percent: float) -> Estimate:
    return over_processes([float(np.percentile(samples[block.file_name], percent)) for block in blocks])


def _p90_is_known(blocks: tuple[TimingBlock, ...], samples: Samples) -> bool:
    return all(len(samples[block.file_name]) >= P90_MIN_SAMPLES for block in blocks)


def _median(blocks: tuple[TimingBlock, ...], of: Callable[[TimingBlock], int]) -> float:
    return float(np.median([of(block) for block in blocks]))
