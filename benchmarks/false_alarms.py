"""How often two variants are called different that are not, and how often a slowdown of 5 % is found.

Every comparison goes through the whole agent: jobs of several models, each in fresh processes, interleaved in random
order, compared as a report compares them. A model against itself must be called different no more often than the stated
confidence allows; one that does exactly 5 % more work must be called slower almost always.

All of it keeps to one core: the cores of a virtual machine are slowed down by its neighbours each at times of its own,
so that two processes of a pair would share less of what hits them.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from local_agent import blob_of, done, local_agent, make_models

from device_agent.protocol import ConditionSpec, DataSpec, JobSpec, Measurement, MeasureSpec, ModelSpec
from pipeline.agent_client import AgentClient, Blob
from pipeline.export import sha256
from pipeline.results.comparison import FASTER, SIGNIFICANCE, SLOWER, SMALLEST_EFFECT, speed_of, time_ratio
from pipeline.results.record import Estimate

# Multiplications of two small matrices in an invoke: 5 % more of them are 5 % more work.
WORK, MORE_WORK = 200, 210
FOUND_AT_LEAST = 0.95
# A model must not be called different from itself with as few processes as a run has when it asks for nothing. How many
# it takes to find 5 % depends on the machine: how far a median moves from one process to the next.
DEFAULT_PROCESSES, MANY_PROCESSES = 5, 100
WARMUP_S, TIMING_S = 0.02, 0.06
SHAPE = (28, 28, 1)
# A busy machine makes intervals wider, and that is for them to show.
ANY_CONDITIONS = ConditionSpec(max_temperature_c=None, max_other_cpus=None, retries=0)


@dataclass(frozen=True)
class ModelFile:
    """A model and the runtime that opens it."""

    runtime: str
    path: Path


@dataclass(frozen=True)
class Pair:
    """The same two models as one job measured them."""

    first: Measurement
    second: Measurement

    def ratio(self, processes: int) -> Estimate:
        """Return the ratio of their times by the first ``processes`` of each."""
        first, second = (replace(one, blocks=one.blocks[:processes]) for one in (self.first, self.second))
        return time_ratio(first, second)

    @property
    def medians_ns(self) -> list[list[int]]:
        """The p50 of each process of the first, and of the second."""
        return [[block.median_ns for block in one.blocks] for one in (self.first, self.second)]


@dataclass(frozen=True)
class Series:
    """Comparisons of the same two models, whose true ratio of times is known, by so many processes of each."""

    name: str
    truth: float
    processes: int
    pairs: tuple[Pair, ...]

    @property
    def ratios(self) -> list[Estimate]:
        """The ratio of times of each comparison."""
        return [pair.ratio(self.processes) for pair in self.pairs]

    @property
    def called_different(self) -> float:
        """The share of comparisons that say "slower", of equal models also of those that say "faster"."""
        said = (SLOWER,) if self.truth > 1 else (FASTER, SLOWER)
        return sum(speed_of(ratio, SMALLEST_EFFECT) in said for ratio in self.ratios) / len(self.pairs)

    @property
    def coverage(self) -> float:
        """The share of intervals that hold the true ratio."""
        return sum((ratio.low or 0) <= self.truth <= (ratio.high or 0) for ratio in self.ratios) / len(self.pairs)

    def __str__(self) -> str:
        median = float(np.median([ratio.value for ratio in self.ratios]))
        return (
            f"{self.name}: {len(self.pairs)} comparisons by {self.processes} processes each, median ratio "
            f"{median:.4f}, truth {self.truth:.4f}, 95 % intervals hold it in {self.coverage:.1%}; called different "
            f"{self.called_different:.1%}"
        )


class Comparer:
    """Compares two models through the agent, several pairs in a job."""

    def __init__(self, client: AgentClient, scratch: Path) -> None:
        self._client = client
        self._scratch = scratch

    def pairs(
        self, models: tuple[ModelFile, ModelFile], processes: int, jobs: int, pairs_a_job: int
    ) -> tuple[Pair, ...]:
        """Return what so many jobs measure of ``models``."""
        found: list[Pair] = []
        for number in range(jobs):
            measure = MeasureSpec(processes=processes, warmup_s=WARMUP_S, timing_s=TIMING_S, seed=number)
            found += self._job(models, measure, pairs_a_job)
            print(f"{len(found)} of {jobs * pairs_a_job} comparisons", flush=True)
        return tuple(found)

    def _job(self, models: tuple[ModelFile, ModelFile], measure: MeasureSpec, pairs: int) -> list[Pair]:
        first, second = (Blob(sha256(model.path.read_bytes()), model.path) for model in models)
        inputs = blob_of(np.zeros((1, *SHAPE), np.float32), self._scratch)
        labels = blob_of(np.zeros(1, np.int64), self._scratch)
        specs = [
            ModelSpec(f"{side}{pair}", blob.sha256, models[0].runtime)
            for pair in range(pairs)
            for side, blob in (("a", first), ("b", second))
        ]
        spec = JobSpec(
            name="false alarms",
            models=tuple(specs),
            data=DataSpec(inputs.sha256, labels.sha256, 1),
            metric="top1",
            measure=measure,
            conditions=ANY_CONDITIONS,
        )
        result = done(self._client, spec, [first, second, inputs, labels])
        found = {measurement.model: measurement for measurement in result.measurements}
        return [Pair(found[f"a{pair}"], found[f"b{pair}"]) for pair in range(pairs)]


def main() -> int:
    """Print the shares of each series; return 1 when one misses its limit."""
    asked = _arguments()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        scratch = Path(name)
        make_models(Path(__file__).with_name("timing_fidelity_models.py"), str(scratch))
        reference = ModelFile("litert", scratch / "fashion_mnist_float32.tflite")
        work, more = _null_model(scratch, WORK), _null_model(scratch, MORE_WORK)
        with local_agent(scratch / "home") as client:
            compare = Comparer(client, scratch).pairs
            slowed = compare((more, work), asked.processes, asked.slowed, 1)
            same = compare((reference, reference), DEFAULT_PROCESSES, asked.same // 5, 5)
    if asked.out:
        asked.out.write_text(
            json.dumps({"slowed": [p.medians_ns for p in slowed], "same": [p.medians_ns for p in same]})
        )
    for processes in (fewer for fewer in (20, 40, 60) if fewer < asked.processes):
        print(Series("the same by fewer", MORE_WORK / WORK, processes, slowed))
    judged = (
        (Series("5 % more work", MORE_WORK / WORK, asked.processes, slowed), FOUND_AT_LEAST, 1.0),
        (Series("Fashion-MNIST against itself", 1.0, DEFAULT_PROCESSES, same), 0.0, SIGNIFICANCE),
    )
    missed = False
    for series, least, most in judged:
        within = least <= series.called_different <= most
        print(f"{series}: {'within' if within else 'NOT within'} {least:.0%} to {most:.0%}")
        missed |= not within
    return int(missed)


def _null_model(scratch: Path, work: int) -> ModelFile:
    path = scratch / f"work{work}.json"
    path.write_text(json.dumps({"input_shape": [1, *SHAPE], "work": work}))
    return ModelFile("null", path)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--same", type=int, default=200, help="comparisons of a model with itself")
    parser.add_argument("--slowed", type=int, default=40, help="comparisons with a model that does 5 %% more work")
    parser.add_argument("--processes", type=int, default=MANY_PROCESSES, help="for each model, where it does more work")
    parser.add_argument("--out", type=Path, help="a JSON file for the p50 of every process, in ns")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
