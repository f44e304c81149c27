"""What edgepress's compression yields against what others document, on three models of Fashion-MNIST.

Both sides of a pair start from the same checkpoint and may train on the same images; what is to reach the two goals,
and has no peer, trains on all. Every flatbuffer, edgepress's and the peers', is then timed and scored in one job of a
local agent on one runtime: interleaved processes, all test images. A pair is judged as a report judges two variants:
faster or slower by paired blocks, better or worse by McNemar.

edgepress puts the recipe behind a file, which the peers do not: a pair's sizes are compared without it, and what it
takes is printed.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from local_agent import blob_of, done, local_agent

from device_agent.protocol import DataSpec, JobResult, JobSpec, Measurement, MeasureSpec, ModelSpec
from models import fashion_mnist, fashion_mnist_mobilenet, fashion_mnist_resnet8
from pipeline.agent_client import AgentClient, Blob
from pipeline.building.running_steps import RunningSteps
from pipeline.building.variants import prepare
from pipeline.cache import user_cache
from pipeline.config import load_experiment
from pipeline.export import gzip_size, sha256
from pipeline.reporting.progress import NoProgress
from pipeline.results.comparison import SLOWER, WORSE, compare
from pipeline.results.record import Comparison

Scores = dict[str, npt.NDArray[Any]]

FOLDER = Path(__file__).parent
MODELS = {module.__name__.rpartition(".")[2]: module.CHECKPOINT for module in (
    fashion_mnist, fashion_mnist_resnet8, fashion_mnist_mobilenet
)}  # fmt: skip
# The share of the MACs that is to stay of each model to make it twice as fast: less than half, since a time that is not
# spent on MACs, such as that of starting an operator, does not shrink with them.
MACS = {"fashion_mnist": 0.3, "fashion_mnist_resnet8": 0.35, "fashion_mnist_mobilenet": 0.18}
PAIRED, GOALS = "compression_yield.yaml", "compression_yield_goals.yaml"
# Whose flatbuffer is compared with whose: the same technique on both sides.
PAIRS = {
    "int8": ("tf_int8", "aeq_static_int8"),
    "dynamic_range": ("tf_dynamic_range",),
    # TensorFlow leaves weights of fewer than 1024 values in float, ai-edge-quantizer does not; here one may choose.
    "dynamic_range_all": ("aeq_dynamic",),
    "pruned_int8": ("tf_pruned_int8",),
    "pcqat": ("tf_pcqat",),
}
BASELINE, PLAIN, CHANNELS = "float32", "int8", "channel_pruned_int8"
MOST_GZIP = 1.02
TRAINING_IMAGES = 60_000
SMALLER, FASTER, MOST_LOST_PP = 10.0, 2.0, 1.0


@dataclass(frozen=True)
class Flatbuffer:
    """One file, what it weighs, and what the agent says of it."""

    gzip_bytes: int
    bare_gzip_bytes: int
    measurement: Measurement


def main() -> int:
    """Print each pair and what was asked for; return 1 when a limit is missed."""
    asked = _arguments()
    missed = [name for name in asked.models if not _judged(name, asked.samples)]
    print(f"limits missed on: {', '.join(missed) or 'none'}")
    return int(bool(missed))


def _judged(name: str, samples: int) -> bool:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        scratch = Path(folder)
        data, all_data = (_training_data(scratch / f"{count}.npz", count) for count in (samples, TRAINING_IMAGES))
        ours = {**_ours(name, PAIRED, scratch, data), **_ours(name, GOALS, scratch, all_data)}
        paths = {**ours, **_peers(MODELS[name], data)}
        print(f"\n{name}: {len(paths)} flatbuffers built; both sides were fine-tuned on {samples:,} images", flush=True)
        with local_agent(scratch / "home") as client:
            result, scores = _measured(client, paths, data, scratch)
        sizes = {name: (gzip_size(path.read_bytes()), _bare_gzip_size(path)) for name, path in paths.items()}
    found = {m.model: Flatbuffer(*sizes[m.model], m) for m in result.measurements}
    return _report(found, scores) & _small_enough({name: found[name] for name in ours}) & _fast_enough(found, scores)


def _bare_gzip_size(path: Path) -> int:
    """Return what a flatbuffer weighs without the archive behind it, if there is one."""
    content = path.read_bytes()
    try:
        entries = zipfile.ZipFile(io.BytesIO(content)).infolist()
    except zipfile.BadZipFile:
        return gzip_size(content)
    return gzip_size(content[: min(entry.header_offset for entry in entries)])


def _report(found: dict[str, Flatbuffer], scores: Scores) -> bool:
    baseline, within = found[BASELINE], True
    for name, one in sorted(found.items()):
        score, ratio = one.measurement.score.value, one.gzip_bytes / baseline.gzip_bytes
        print(f"{name:22} top-1 {score:.2%} ({-_lost_pp(one, baseline):+.2f} pp), gzip {ratio:.3f} of float32")
    for ours, peers in PAIRS.items():
        for peer in peers:
            within &= _no_worse(found[ours], found[peer], scores)
    most = max(one.gzip_bytes - one.bare_gzip_bytes for one in found.values())
    print(f"a recipe takes up to {most:,} bytes after gzip, which the pairs' sizes leave out, the others not")
    return within


def _no_worse(ours: Flatbuffer, peer: Flatbuffer, scores: Scores) -> bool:
    compared: Comparison = compare(ours.measurement, peer.measurement, scores)
    gzip_ratio = ours.bare_gzip_bytes / peer.bare_gzip_bytes
    within = compared.speed != SLOWER and compared.accuracy != WORSE and gzip_ratio <= MOST_GZIP
    ratio = compared.time_ratio
    print(
        f"{ours.measurement.model} against {peer.measurement.model}: time {ratio.value:.3f} "
        f"({ratio.low:.3f} to {ratio.high:.3f}, {compared.speed}), gzip {gzip_ratio:.3f}, "
        f"accuracy {compared.accuracy} (p = {compared.p_value:.3f}): {'within' if within else 'NOT within'}"
    )
    return within


def _small_enough(ours: dict[str, Flatbuffer]) -> bool:
    """Look for the smallest that lost no more than it may."""
    baseline = ours[BASELINE]
    kept = {name: one for name, one in ours.items() if _lost_pp(one, baseline) <= MOST_LOST_PP}
    name, smallest = min(kept.items(), key=lambda entry: entry[1].gzip_bytes)
    ratio, lost_pp = baseline.gzip_bytes / smallest.gzip_bytes, _lost_pp(smallest, baseline)
    print(f"{name}: {ratio:.1f} times smaller, {lost_pp:.2f} pp lost (at least {SMALLER:g}, at most {MOST_LOST_PP:g})")
    return ratio >= SMALLER


def _fast_enough(found: dict[str, Flatbuffer], scores: Scores) -> bool:
    ratio = compare(found[PLAIN].measurement, found[CHANNELS].measurement, scores).time_ratio.value
    lost_pp = _lost_pp(found[CHANNELS], found[BASELINE])
    within = ratio >= FASTER and lost_pp <= MOST_LOST_PP
    print(
        f"{CHANNELS}: {ratio:.2f} times faster, {lost_pp:.2f} pp lost (at least {FASTER:g}, at most {MOST_LOST_PP:g})"
    )
    return within


def _lost_pp(one: Flatbuffer, baseline: Flatbuffer) -> float:
    return 100 * (baseline.measurement.score.value - one.measurement.score.value)


def _training_data(path: Path, samples: int) -> Path:
    dataset = fashion_mnist.load_data(None, user_cache().folder, lambda what, done, total: None)
    np.savez(
        path,
        x_train=dataset.x_train[:samples],
        y_train=dataset.y_train[:samples],
        x_test=dataset.x_test,
        y_test=dataset.y_test,
    )
    return path


def _ours(name: str, file_name: str, scratch: Path, data: Path) -> dict[str, Path]:
    """Build the variants of an experiment; what the cache has is not built again."""
    text, path = (FOLDER / file_name).read_text(), scratch / file_name
    for word, value in (("MODEL", MODELS[name]), ("DATA", data), ("MACS", MACS[name])):
        text = text.replace(word, str(value))
    path.write_text(text)
    experiment = load_experiment(path)
    built = {}
    with RunningSteps() as steps:
        builder, source = prepare(experiment, user_cache(), steps, NoProgress())
        for variant in experiment.variants:
            artifact, _ = builder.build(source, variant, lambda fraction, text: None)
            built[variant.name] = Path(artifact.path)
            print(f"{name}: edgepress {variant.name}", flush=True)
    return built


def _peers(checkpoint: Path, data: Path) -> dict[str, Path]:
    """Build the peers' flatbuffers, each in a process of its own; what the cache has is not built again."""
    script, cache = FOLDER / "compression_yield_peers.py", user_cache()
    inputs = "".join(sha256(path.read_bytes()) for path in (script, checkpoint, data))
    built = {}
    for recipe in (recipe for recipes in PAIRS.values() for recipe in recipes):
        key, file_name = sha256(f"{inputs} {recipe}".encode()), f"{recipe}.tflite"
        with cache.entry("benchmarks", key) as (folder, is_there):
            if not is_there:
                command = [sys.executable, str(script), recipe, str(checkpoint), str(data), str(folder / file_name)]
                made = subprocess.run(command, capture_output=True, text=True)
                if made.returncode:
                    raise SystemExit(f"{recipe} cannot be built: {made.stderr[-2000:]}")
        built[recipe] = cache.subfolder("benchmarks") / key / file_name
        print(f"{checkpoint.stem}: {recipe}", flush=True)
    return built


def _measured(client: AgentClient, paths: dict[str, Path], data: Path, scratch: Path) -> tuple[JobResult, Scores]:
    with np.load(data) as arrays:
        inputs, labels = blob_of(arrays["x_test"], scratch), blob_of(arrays["y_test"], scratch)
        count = len(arrays["y_test"])
    blobs = {name: Blob(sha256(path.read_bytes()), path) for name, path in paths.items()}
    spec = JobSpec(
        name="compression yield",
        models=tuple(ModelSpec(name, blob.sha256, "litert") for name, blob in blobs.items()),
        data=DataSpec(inputs.sha256, labels.sha256, count, 1 / 255, 0.0),
        metric="top1",
        measure=MeasureSpec(processes=15, warmup_s=0.3, timing_s=0.5),
        baseline=BASELINE,
    )
    unique = {blob.sha256: blob for blob in [*blobs.values(), inputs, labels]}
    files = scratch / "files"
    files.mkdir()
    result = done(client, spec, list(unique.values()), files)
    return result, {path.name: np.load(path) for path in files.glob("*.npy")}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--samples", type=int, default=20_000, help="training images, for both sides of a pair")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
