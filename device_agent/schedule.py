"""Which blocks a job consists of, and when its timing is done."""

from __future__ import annotations

import random
import statistics
from collections.abc import Collection, Sequence

from device_agent.blocks import Block
from device_agent.intervals import median_interval
from device_agent.protocol import JobSpec, MeasureSpec, ProtocolError, TimingBlock

# More would not fit into one message with the result, at up to 1.2 KB a block with its file, 2 KB a failure and 120
# bytes a minute.
MOST_BLOCKS = 800
_BLOCKS_A_FAILURE = 10
_MINUTES_A_BLOCK = 5


def check_size(models: int, measure: MeasureSpec) -> None:
    """See that the result of a job of so many models fits into one message.

    Raises:
        ProtocolError: if it does not, with what it asks for and what is allowed.
    """
    if _size(models, measure, measure.processes) > MOST_BLOCKS:
        raise ProtocolError(
            f"job has {models} models in {measure.processes} processes each, sustained for "
            f"{measure.sustained_s:g} s; at most {MOST_BLOCKS} = models * (processes + {_BLOCKS_A_FAILURE} + "
            f"sustained minutes / {_MINUTES_A_BLOCK}) fit into one result"
        )


def _size(models: int, measure: MeasureSpec, processes: int) -> float:
    return models * (processes + _BLOCKS_A_FAILURE + measure.sustained_s / 60 / _MINUTES_A_BLOCK)


def planned_blocks(spec: JobSpec) -> int:
    """Return how many blocks the job has at least: more when precision asks for it, or a board can tell its power."""
    return len(spec.models) * spec.measure.processes + len(later_blocks(spec, with_power=False))


def timing_round(spec: JobSpec, process: int) -> list[Block]:
    """Return one process of every model, in a random order, so that drift and heat hit all alike.

    The same seed and ``process`` give the same order, also after a restart.
    """
    models = list(range(len(spec.models)))
    # Integers seed alike on every version of Python; an order is no secret.
    random.Random(spec.measure.seed * 1_000_003 + process).shuffle(models)  # noqa: S311
    return [Block("timing", model, process) for model in models]


def later_blocks(spec: JobSpec, with_power: bool) -> list[Block]:
    """Return the passes that follow the timing: scores with the baseline's first, and what else was asked for."""
    names = [model.name for model in spec.models]
    models = sorted(range(len(names)), key=lambda model: names[model] != spec.baseline)
    blocks = [Block("scoring", model) for model in models]
    if spec.measure.profile:
        blocks += [Block("profile", model) for model in models]
    if with_power:
        blocks += [Block("power", model) for model in models]
    if spec.measure.sustained_s:
        blocks += [Block("sustained", model) for model in models]
    return blocks


def needs_another_round(spec: JobSpec, rounds: int, timed: Collection[Sequence[TimingBlock]], spent_s: float) -> bool:
    """Say whether every model is to be timed in one more process.

    An interval must be narrow enough twice in a row: to stop at the first that looks so would choose the lucky ones.

    Args:
        spec: the job.
        rounds: how many there have been.
        timed: the blocks of each model whose numbers can still be used.
        spent_s: how long timing has taken so far, pauses included.
    """
    measure = spec.measure
    if rounds < measure.processes:
        return True
    if not measure.precision or not timed or spent_s >= measure.time_limit_s:
        return False
    if _size(len(spec.models), measure, rounds + 1) > MOST_BLOCKS:
        return False
    medians = [[block.median_ns for block in blocks] for blocks in timed]
    latest = (half_width(known) > measure.precision for known in medians)
    earlier = (half_width(known[:-1]) > measure.precision for known in medians)
    return any(latest) or any(earlier)


def half_width(medians_ns: Sequence[int]) -> float:
    """Return half the width of the interval of the median over processes, as a share of that median; infinity for one
    process, which has no interval."""
    interval = median_interval(medians_ns)
    return (interval[1] - interval[0]) / 2 / statistics.median(medians_ns) if interval else float("inf")
