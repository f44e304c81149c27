"""The agent's p50 against a native loop's, on the same library, model, input and threads.

One side is a real job of one process through a real local agent: daemon, child, Python, ``Interpreter.invoke``. The
other is ``timing_fidelity_native.c``, compiled here, which drives the wheel's ``libLiteRt.so`` through its C interface
and shares no code with the agent. The two take turns, process by process, with the same warm-up and length of timing.
Both must give the output that TensorFlow Lite gives on the host.

Compared are the lowest tenths of the processes' p50s. What else goes on in a machine only ever adds time, to some
processes and not to others: other tenants, a model whose pages lie badly in memory. On the shared machine where this
was written a third of the processes ran at a floor that both sides have, and the others took up to half as long again,
which is no difference between two loops. Low quantiles leave it out (Chen and Revels, "Robust benchmarking in noisy
environments", 2016, arXiv:1608.04295). The ratio of the medians is printed too.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from local_agent import blob_of, done, local_agent, make_models
from scipy import stats

from device_agent.protocol import ConditionSpec, DataSpec, JobSpec, MeasureSpec, ModelSpec
from pipeline.agent_client import AgentClient, Blob
from pipeline.devices.local import default_agent
from pipeline.export import sha256

FOLDER = Path(__file__).parent
MODELS = ("fashion_mnist_float32", "fashion_mnist_int8", "mobilenet_v2_float32")
LIMITS = (0.98, 1.02)
QUANTILE = 0.1
# The board's load is looked at by neither side: taking only the agent's disturbed blocks again would favour it.
ANY_CONDITIONS = ConditionSpec(max_temperature_c=None, max_other_cpus=None, retries=0)


@dataclass(frozen=True)
class Settings:
    """How each process warms up and times, on both sides."""

    threads: int
    measure: MeasureSpec


class Native:
    """The compiled loop and the library that it loads."""

    def __init__(self, scratch: Path, settings: Settings) -> None:
        self._program = scratch / "native"
        self._library = _library()
        self._settings = settings

    def compile(self) -> None:
        """Compile the loop with this machine's C compiler."""
        source = FOLDER / "timing_fidelity_native.c"
        subprocess.run(["cc", "-O2", "-Wall", "-Werror", "-o", str(self._program), str(source), "-ldl"], check=True)

    def median_ns(self, model: Path) -> float:
        """Return the median invoke time of a fresh process, after a look at the output it gives."""
        given, taken = model.with_suffix(".input"), model.with_suffix(".output")
        facts, measure = np.load(model.with_suffix(".npz")), self._settings.measure
        given.write_bytes(facts["input"].tobytes())
        limits = (measure.warmup_s, measure.timing_s, measure.min_invokes, measure.max_invokes)
        command = [self._program, self._library, model, given, taken, self._settings.threads, *limits]
        ended = subprocess.run([str(word) for word in command], capture_output=True, text=True)
        if ended.returncode:
            raise SystemExit(f"the native loop ended with {ended.returncode}: {ended.stderr[-2000:]}")
        output = np.frombuffer(taken.read_bytes(), facts["output"].dtype).reshape(facts["output"].shape)
        _check_output(model.stem, output, facts["output"])
        return float(json.loads(ended.stdout.splitlines()[-1])["median_ns"])


class Agent:
    """A local agent with a home of its own, asked for one process at a time."""

    def __init__(self, client: AgentClient, scratch: Path, settings: Settings) -> None:
        self._client = client
        self._scratch = scratch
        self._settings = settings

    def median_ns(self, model: Path, number: int) -> float:
        """Return the median invoke time of a job of one process; ``number`` makes the job one of its own."""
        facts = np.load(model.with_suffix(".npz"))
        inputs = blob_of(facts["sample"], self._scratch)
        # One sample, labelled as the host's TensorFlow Lite classifies it: the score says whether the output agrees.
        labels = blob_of(np.array([facts["output"].argmax()]), self._scratch)
        spec = JobSpec(
            name="timing fidelity",
            models=(ModelSpec(model.stem, sha256(model.read_bytes()), "litert", self._settings.threads),),
            data=DataSpec(inputs.sha256, labels.sha256, 1),
            metric="top1",
            measure=dataclasses.replace(self._settings.measure, seed=number),
            conditions=ANY_CONDITIONS,
        )
        result = done(self._client, spec, [Blob(spec.models[0].sha256, model), inputs, labels])
        (measurement,) = result.measurements
        if measurement.score.value != 1:
            raise SystemExit(f"{model.stem}: the agent's output is not that of the host")
        (block,) = measurement.blocks
        return float(block.median_ns)


def main() -> int:
    """Print the ratio of each model; return 1 when one is out of its limits."""
    arguments = _arguments()
    measure = MeasureSpec(processes=1, warmup_s=arguments.warmup_s, timing_s=arguments.timing_s)
    settings = Settings(arguments.threads, measure)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        scratch = Path(name)
        make_models(FOLDER / "timing_fidelity_models.py", str(scratch))
        native = Native(scratch, settings)
        native.compile()
        with local_agent(scratch / "home") as client:
            agent = Agent(client, scratch, settings)
            taken_ns = measured(agent, native, scratch, arguments.processes)
    within = [report(model, taken_ns[model]) for model in MODELS]
    return int(not all(within))


def measured(agent: Agent, native: Native, scratch: Path, processes: int) -> dict[str, list[tuple[float, float]]]:
    """Return by model what the agent and the native loop measured, ns, pair by pair."""
    taken_ns: dict[str, list[tuple[float, float]]] = {model: [] for model in MODELS}
    for number in range(processes):
        for name in MODELS:
            model = scratch / f"{name}.tflite"
            # Each goes first every other time, so that what the one leaves behind favours neither.
            if number % 2:
                native_ns = native.median_ns(model)
                agent_ns = agent.median_ns(model, number)
            else:
                agent_ns = agent.median_ns(model, number)
                native_ns = native.median_ns(model)
            taken_ns[name].append((agent_ns, native_ns))
            print(f"{name} {number + 1}: agent {agent_ns / 1000:.1f} µs, native {native_ns / 1000:.1f} µs", flush=True)
    return taken_ns


def report(model: str, pairs_ns: list[tuple[float, float]]) -> bool:
    """Print the ratio of the lowest tenths with its 95 % interval; return whether it is within the limits."""
    agent_ns, native_ns = np.transpose(pairs_ns)
    ratio = float(_ratio(agent_ns, native_ns))
    found = stats.bootstrap((agent_ns, native_ns), _ratio, paired=True, method="percentile", rng=0).confidence_interval
    medians = float(np.median(agent_ns) / np.median(native_ns))
    within = LIMITS[0] <= ratio <= LIMITS[1]
    agent_us, native_us = (np.quantile(taken_ns, QUANTILE) / 1000 for taken_ns in (agent_ns, native_ns))
    said = f"{'within' if within else 'NOT within'} {LIMITS[0]} to {LIMITS[1]}"
    print(
        f"{model}: agent {agent_us:.1f} µs, native {native_us:.1f} µs, ratio {ratio:.4f} ({found.low:.4f} to "
        f"{found.high:.4f}), {said}; of medians {medians:.4f} ({len(pairs_ns)} processes on each side)"
    )
    return within


def _ratio(agent_ns: npt.NDArray[Any], native_ns: npt.NDArray[Any], axis: int = -1) -> Any:
    return np.quantile(agent_ns, QUANTILE, axis=axis) / np.quantile(native_ns, QUANTILE, axis=axis)


def _check_output(model: str, output: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> None:
    real, wanted = output.astype(np.float64), expected.astype(np.float64)
    # Kernels differ by rounding: an int8 output by a few steps, a float one in its last digits.
    relative, absolute = (0.0, 5.0) if expected.dtype.kind in "iu" else (1e-3, 1e-6)
    if not np.allclose(real, wanted, rtol=relative, atol=absolute):
        raise SystemExit(f"{model}: the native loop's output is not that of the host")


def _library() -> Path:
    """Return the ``libLiteRt.so`` of the environment that the agent runs litert in."""
    python = default_agent()[0]
    code = "import importlib.util; print(importlib.util.find_spec('ai_edge_litert').origin)"
    found = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    return Path(found.stdout.strip()).with_name("libLiteRt.so")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=60, help="on each side, for each model")
    parser.add_argument("--warmup-s", type=float, default=0.2)
    parser.add_argument("--timing-s", type=float, default=0.3)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
