"""Boards behind real SSH servers with real agents, and an experiment for them that needs no TensorFlow."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
from agents import write_agent
from ssh_server import SshServer

from pipeline.cache import Cache
from pipeline.config import Experiment, load_experiment
from pipeline.reporting.progress import Progress
from pipeline.results.record import Artifact, VariantRecord
from pipeline.samples import Samples, npz_samples

# A board of a test is this very machine, which is never idle.
ANY_CONDITIONS = "{max_temperature_c: null, max_other_cpus: null}"
QUICK = "{processes: 1, warmup_s: 0, timing_s: 0}"
Descriptions = Mapping[str, dict[str, object]]
TWO_VARIANTS: Descriptions = {"float32": {"invoke_us": 400}, "small": {"invoke_us": 100}}


def write_board(folder: Path, name: str, server: SshServer, home: Path, **more: object) -> Path:
    """Write the file of a device whose agent has its folder at ``home``, and return it."""
    values = {
        "host": server.host,
        "port": server.port,
        "user": server.user,
        "identity_file": server.user_key,
        "agent": write_agent(folder),
        "home": home,
        "conditions": ANY_CONDITIONS,
        **more,
    }
    file = folder / f"{name}.yaml"
    file.write_text("".join(f"{key}: {value}\n" for key, value in values.items()))
    return file


def null_experiment(folder: Path, names: Iterable[str] = TWO_VARIANTS, **more: str) -> Experiment:
    """Return an experiment of variants of these names for the stand-in runtime; ``more`` are lines of its file."""
    top = {"metric": "top1", "runtime": '"null"', "measure": QUICK, **more}
    lines = "".join(f"{key}: {value}\n" for key, value in top.items())
    variants = "".join(f"  {name}: []\n" for name in names)
    path = folder / "e.yaml"
    path.write_text(f"name: tiny\nmodel: none.tflite\ndata: {{file: d.npz}}\n{lines}variants:\n{variants}")
    return load_experiment(path)


def null_build(
    folder: Path, descriptions: dict[str, dict[str, object]] = TWO_VARIANTS, samples: int = 8
) -> Callable[..., tuple[list[VariantRecord], Samples]]:
    """Return what takes the place of building: the stand-in's models as artifacts, and samples that it gets right."""

    def build(experiment: Experiment, cache: Cache, progress: Progress) -> tuple[list[VariantRecord], Samples]:
        data = folder / "d.npz"
        labels = np.arange(samples) % 4
        np.savez(data, x_test=np.eye(4, dtype=np.float32)[labels], y_test=labels)
        variants = [_variant(folder, variant.name, descriptions[variant.name]) for variant in experiment.variants]
        return variants, npz_samples(data, cache, None, None)

    return build


def _variant(folder: Path, name: str, description: dict[str, object]) -> VariantRecord:
    content = json.dumps({"input_shape": [1, 4], **description}).encode()
    sha256 = hashlib.sha256(content).hexdigest()
    path = folder / f"{sha256}.tflite"
    path.write_bytes(content)
    artifact = Artifact(sha256, str(path), len(content), len(content), (), (), (), {})
    return VariantRecord(name, (), artifact, None, None, None, ())
