"""Whether one variant is really faster, or more often right, than another: paired blocks and paired samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.intervals import CONFIDENCE
from device_agent.protocol import Measurement
from pipeline.results.record import Comparison, Estimate

SMALLEST_EFFECT = 0.02
SIGNIFICANCE = 1 - CONFIDENCE

FASTER, SLOWER, AS_FAST, NOT_SHOWN, EMULATED = "faster", "slower", "as fast", "not shown", "emulated"
BETTER, WORSE = "better", "worse"

# Of five, even the smallest and the largest enclose a median with 93.75 % only.
_SIGN_TEST_PAIRS = 6


def compare(
    variant: Measurement,
    baseline: Measurement,
    samples: Mapping[str, NDArray[Any]],
    smallest_effect: float = SMALLEST_EFFECT,
    emulated: bool = False,
) -> Comparison:
    """Return how ``variant`` compares with ``baseline``, both measured in one job.

    Args:
        variant: what is judged.
        baseline: what it is judged against.
        samples: file name → raw values, of which the two score files are looked at.
        smallest_effect: the relative difference in time below which two variants count as equally fast.
        emulated: whether the board is: emulation even reverses the order of float and int8.
    """
    ratio = None if emulated else time_ratio(variant, baseline)
    # Times that may not be used cannot show anything.
    usable = not (is_disturbed(variant) or is_disturbed(baseline))
    speed = EMULATED if ratio is None else speed_of(ratio, smallest_effect) if usable else NOT_SHOWN
    ours, theirs = samples[variant.score.file_name], samples[baseline.score.file_name]
    if not (_right_or_wrong(ours) and _right_or_wrong(theirs) and len(ours) == len(theirs)):
        return Comparison(baseline.model, ratio, smallest_effect, speed)
    gained = int(np.count_nonzero((ours == 1) & (theirs == 0)))
    lost = int(np.count_nonzero((ours == 0) & (theirs == 1)))
    p_value = mcnemar(gained, lost)
    accuracy = NOT_SHOWN if p_value >= SIGNIFICANCE else BETTER if gained > lost else WORSE
    return Comparison(baseline.model, ratio, smallest_effect, speed, lost, gained, p_value, accuracy)


def is_disturbed(measurement: Measurement) -> bool:
    """Whether a block of ``measurement`` stayed disturbed."""
    return any(block.conditions.disturbances for block in measurement.blocks)


def time_ratio(variant: Measurement, baseline: Measurement) -> Estimate:
    """Return the ratio of the two medians and its 95 % interval.

    Blocks are paired by their process: two of a pair ran one right after the other, so that drift and heat cancel. The
    estimate is the median of the pairs' ratios, its interval that of the sign test (Thompson, "On Confidence Ranges for
    the Median", Annals of Mathematical Statistics 7, 1936), which asks nothing of how noise is distributed and does not
    mind some pairs of which one was slowed down. It needs six pairs; below, the interval is Student's t on the ratios'
    logarithms ("The Probable Error of a Mean", Biometrika 6, 1908). One pair alone has none.
    """
    theirs = {block.process: block.median_ns for block in baseline.blocks}
    pairs = [(block.median_ns, theirs[block.process]) for block in variant.blocks if block.process in theirs]
    ratios = np.array([max(ours, 1) / max(other, 1) for ours, other in pairs])
    estimate = float(np.median(ratios))
    if len(pairs) < 2:
        return Estimate(estimate)
    low, high = (_students_t if len(pairs) < _SIGN_TEST_PAIRS else _sign_test)(ratios)
    return Estimate(estimate, float(low), float(high))


def _students_t(ratios: NDArray[np.float64]) -> tuple[float, float]:
    from scipy import stats

    logarithms = np.log(ratios)
    half = stats.sem(logarithms) * stats.t.ppf((1 + CONFIDENCE) / 2, len(ratios) - 1)
    return np.exp(logarithms.mean() - half), np.exp(logarithms.mean() + half)


def _sign_test(ratios: NDArray[np.float64]) -> tuple[float, float]:
    from scipy import stats

    interval = stats.quantile_test(ratios, q=1.0, p=0.5).confidence_interval(CONFIDENCE)
    return interval.low, interval.high


def speed_of(ratio: Estimate, smallest_effect: float) -> str:
    """Return what may be said of a ratio of times: "faster" and "slower" only when all of its interval is beyond the
    smallest effect, "as fast" only when all of it is within."""
    if ratio.low is None or ratio.high is None:
        return NOT_SHOWN
    below, above = 1 / (1 + smallest_effect), 1 + smallest_effect
    if ratio.high < below:
        return FASTER
    if ratio.low > above:
        return SLOWER
    return AS_FAST if below <= ratio.low and ratio.high <= above else NOT_SHOWN


def mcnemar(gained: int, lost: int) -> float:
    """Return the exact two-sided p-value that as many samples are gained as lost but for chance.

    McNemar, "Note on the sampling error of the difference between correlated proportions", Psychometrika 12, 1947, in
    its exact form: a binomial test of the samples on which the two differ.
    """
    if gained + lost == 0:
        return 1.0
    from scipy import stats

    return float(stats.binomtest(gained, gained + lost, 0.5).pvalue)


def _right_or_wrong(values: NDArray[Any]) -> bool:
    return len(values) > 0 and bool(np.isin(values, (0, 1)).all())
