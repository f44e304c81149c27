"""The interval of a median over processes: the same for the agent, which stops by it, and for the host's report."""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence

CONFIDENCE = 0.95
_RESAMPLES = 2000


def median_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Return low and high of the 95 % percentile-bootstrap interval of the median; None for fewer than two values.

    Efron, "Bootstrap Methods: Another Look at the Jackknife", Annals of Statistics 7, 1979. In plain Python, since the
    daemon has no numpy and a few dozen values need none. The values are sorted and the draw is seeded: the same values
    give the same interval in any order and on every machine.
    """
    if len(values) < 2:
        return None
    ordered, draw = sorted(values), random.Random(0)  # noqa: S311 - a bootstrap, not a secret
    medians = sorted(statistics.median(draw.choices(ordered, k=len(ordered))) for _ in range(_RESAMPLES))
    tail = round(_RESAMPLES * (1 - CONFIDENCE) / 2)
    return medians[tail], medians[-tail - 1]
