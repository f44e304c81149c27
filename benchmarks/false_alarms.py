"""How often two variants are called different that are not, and how often a slowdown of 5 % is found.

Every comparison goes through the whole agent: jobs of several models, each in fresh processes, interleaved in random
order, compared as a report compares them. A model against itself must be called different no more often than the stated
confidence allows; one that does exactly 5 % more work must be called slower almost always.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from local_agent import blob_of, done, local_agent, make_models

from device_agent.protocol import ConditionSpec, DataSpec, JobSpec, MeasureSpec, ModelSpec
from pipeline.agent_client import AgentClient, Blob
from pipeline.export import sha256
from pipeline.results.comparison import FASTER, SIGNIFICANCE, SLOWER, SMALLEST_EFFECT, speed_of, time_ratio
from pipeline.results.record import Estimate

PAIRS = 5
# Multiplications of two small matrices in an invoke: 5 % more of them are 5 % more work.
WORK, MORE_WORK = 200, 210
FOUND_AT_LEAST = 0.95
# A model must not be called different from itself with as few processes as a run has when it asks for nothing. How many
# it takes to find 5 % depends on the machine: how far a median moves from one process to the next.
DEFAULT_PROCESSES = 5
WARMUP_S, TIMING_S = 0.05, 0.1
SHAPE = (28, 28, 1)
# A busy machine makes intervals wider, and that is for them to show.
ANY_CONDITIONS = ConditionSpec(max_temperature_c=None, max_other_cpus=None, retries=0)


@dataclass(frozen=True)
class ModelFile:
    """A model and the runtime that opens it."""

    runtime: str
    path: Path


@dataclass(frozen=True)
class Series:
    """Comparisons of the same two models, whose true ratio of times is known."""

    name: str
    truth: float
    ratios: tuple[Estimate, ...]

    @property
    def called(self) -> list[str]:
        """What is said of each."""
        return [speed_of(ratio, SMALLEST_EFFECT) for ratio in self.ratios]

    def share(self, *said: str) -> float:
        """Return the share of comparisons of which one of ``said`` is said."""
        return sum(word in said for word in self.called) / len(self.ratios)

    @property
    def coverage(self) -> float:
        """The share of intervals that hold the true ratio."""
        return sum((ratio.low or 0) <= self.truth <= (ratio.high or 0) for ratio in self.ratios) / len(self.ratios)


class Comparer:
    """Compares two models through the agent, several pairs in a job."""

    def __init__(self, client: AgentClient, scratch: Path) -> None:
        self._client = client
        self._scratch = scratch

    def series(self, name: str, truth: float, models: tuple[ModelFile, ModelFile], processes: int, jobs: int) -> Series:
        """Return ``jobs`` times ``PAIRS`` comparisons of the first of ``models`` with the second."""
        ratios: list[Estimate] = []
        for number in range(jobs):
            measure = MeasureSpec(processes=processes, warmup_s=WARMUP_S, timing_s=TIMING_S, seed=number)
            ratios += self._ratios(models, measure)
            print(f"{name}: {len(ratios)} of {jobs * PAIRS} comparisons", flush=True)
        return Series(name, truth, tuple(ratios))

    def _ratios(self, models: tuple[ModelFile, ModelFile], measure: MeasureSpec) -> list[Estimate]:
        first, second = (Blob(sha256(model.path.read_bytes()), model.path) for model in models)
        inputs = blob_of(np.zeros((1, *SHAPE), np.float32), self._scratch)
        labels = blob_of(np.zeros(1, np.int64), self._scratch)
        specs = [
            ModelSpec(f"{side}{pair}", blob.sha256, models[0].runtime)
            for pair in range(PAIRS)
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
        return [time_ratio(found[f"a{pair}"], found[f"b{pair}"]) for pair in range(PAIRS)]


def main() -> int:
    """Print the shares of each series; return 1 when one misses its limit."""
    asked = _arguments()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        scratch = Path(name)
        make_models(Path(__file__).with_name("timing_fidelity_models.py"), str(scratch))
        reference = ModelFile("litert", scratch / "fashion_mnist_float32.tflite")
        work, more = _null_model(scratch, WORK), _null_model(scratch, MORE_WORK)
        with local_agent(scratch / "home") as client:
            compare = Comparer(client, scratch).series
            series = (
                compare("5 % more work", MORE_WORK / WORK, (more, work), asked.processes, asked.jobs // 2),
                compare("Fashion-MNIST against itself", 1.0, (reference, reference), DEFAULT_PROCESSES, asked.jobs),
            )
    within = [report(found) for found in series]  # each is reported, also behind one that missed
    return int(not all(within))


def report(series: Series) -> bool:
    """Print what is said of a series; return whether it is within its limit."""
    count = len(series.ratios)
    median = float(np.median([ratio.value for ratio in series.ratios]))
    if series.truth == 1.0:
        share, limit = series.share(FASTER, SLOWER), SIGNIFICANCE
        within = share <= limit
        said = f"called different {share:.1%} (limit {limit:.0%})"
    else:
        share = series.share(SLOWER)
        within = share >= FOUND_AT_LEAST
        said = f"called slower {share:.1%} (at least {FOUND_AT_LEAST:.0%})"
    print(
        f"{series.name}: {count} comparisons, median ratio {median:.4f}, truth {series.truth:.4f}; {said}; "
        f"95 % intervals hold the truth in {series.coverage:.1%}: {'within' if within else 'NOT within'}"
    )
    return within


def _null_model(scratch: Path, work: int) -> ModelFile:
    path = scratch / f"work{work}.json"
    path.write_text(json.dumps({"input_shape": [1, *SHAPE], "work": work}))
    return ModelFile("null", path)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=40, help=f"of {PAIRS} comparisons; half as many with the slowdown")
    parser.add_argument("--processes", type=int, default=20, help="for each model, where a slowdown is to be found")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
