"""What edgepress adds to the TensorFlow calls it makes: a run of the five variants against a plain script.

Both start with nothing built, in the same number of processes, as many at a time as there are cores, and both score
what each step left on 2,000 images. The plain script measures nothing on a device, so the run is asked for the least:
one process a variant, no warm-up, 64 invokes. What remains on edgepress's side (keys, hashes, the parity check, the
evidence, push, score of 10,000 images, three reports) is overhead.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from models import fashion_mnist
from pipeline.cache import user_cache

ROOT = Path(__file__).parent.parent
ROUNDS = 2
LIMIT = 1.1


def main() -> int:
    """Print both wall times of each round and the median ratio; return 1 when the limit is missed."""
    ratios = []
    for number in range(1, ROUNDS + 1):
        with tempfile.TemporaryDirectory() as scratch:
            data = prepare_data(Path(scratch))
            # Each goes first in half of the rounds, so that a warm file cache favours neither.
            if number % 2:
                plain_s = timed(lambda: run_plain(Path(scratch), data))  # noqa: B023  called before the loop goes on
                ours_s = timed(lambda: run_edgepress(Path(scratch)))
            else:
                ours_s = timed(lambda: run_edgepress(Path(scratch)))
                plain_s = timed(lambda: run_plain(Path(scratch), data))  # noqa: B023
        ratios.append(ours_s / plain_s)
        print(f"round {number}: edgepress {ours_s:.1f} s, plain {plain_s:.1f} s, ratio {ratios[-1]:.3f}", flush=True)
    ratio = float(np.median(ratios))
    print(f"median ratio: {ratio:.3f}; limit {LIMIT}")
    return int(ratio > LIMIT)


def timed(action: Callable[[], None]) -> float:
    """Return how many seconds ``action`` takes."""
    start = time.monotonic()
    action()
    return time.monotonic() - start


def prepare_data(scratch: Path) -> Path:
    """Lay the training samples out as both sides read them; fetching is not what is compared."""
    dataset = fashion_mnist.load_data(None, user_cache().folder, lambda what, done, total: None)
    folder = scratch / "data"
    folder.mkdir()
    for name in ("x_train", "y_train", "x_test", "y_test"):
        np.save(folder / f"{name}.npy", getattr(dataset, name))
    cached = scratch / "cache" / "edgepress"
    cached.mkdir(parents=True)
    (cached / "datasets").symlink_to(user_cache().folder / "datasets")
    return folder


def run_plain(scratch: Path, data: Path) -> None:
    """Run each step's script in a process of its own."""
    source, pruned = fashion_mnist.CHECKPOINT, scratch / "pruned.keras"

    def step(name: str, source: Path, out: str) -> None:
        command = [
            sys.executable,
            str(ROOT / "benchmarks" / "plain_step.py"),
            name,
            str(source),
            str(data),
            str(scratch / out),
        ]
        subprocess.run(command, check=True, capture_output=True, env={**os.environ, "PYTHONPATH": str(ROOT)})

    def prune_then_quantize() -> None:
        step("prune", source, "pruned.keras")
        step("int8", pruned, "pruned_int8.tflite")

    step("inspect", source, "inspect.npy")
    with ThreadPoolExecutor(os.cpu_count()) as executor:
        modes = ("float32", "float16", "dynamic_range", "int8")
        futures = [executor.submit(step, mode, source, f"{mode}.tflite") for mode in modes]
        futures.append(executor.submit(prune_then_quantize))
        for future in futures:
            future.result()


def run_edgepress(scratch: Path) -> None:
    """Run the reference experiment with an empty build cache, measuring as little as it can."""
    text = (ROOT / "configs" / "experiments" / "fashion_mnist.yaml").read_text()
    text = text.replace("processes: 5", "processes: 1").replace("warmup_s: 0.5", "warmup_s: 0")
    (scratch / "run.yaml").write_text(text.replace("timing_s: 1.0", "timing_s: 0"))
    command = [str(Path(sys.executable).with_name("edgepress")), "run", str(scratch / "run.yaml"), "--quiet"]
    environment = {**os.environ, "XDG_CACHE_HOME": str(scratch / "cache"), "XDG_DATA_HOME": str(scratch / "share")}
    done = subprocess.run(
        [*command, "--output", str(scratch / "runs")], capture_output=True, text=True, env=environment
    )
    if done.returncode not in (0, 3):
        raise SystemExit(f"edgepress ended with {done.returncode}: {done.stderr}")


if __name__ == "__main__":
    sys.exit(main())
