"""Flatbuffers that a runtime computes well, wrongly, or dies of, as variants of an experiment on them."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from device_agent.protocol import RuntimeInfo
from pipeline.cache import Cache
from pipeline.config import load_experiment
from pipeline.preflight import check_variants
from pipeline.reporting.progress import NoProgress
from pipeline.results.record import Artifact, StepEvidence, VariantRecord
from pipeline.samples import npz_samples

ROOT = Path(__file__).parents[3]
VERSIONS = {"litert": "2.3.0", "tflite_runtime": "2.14.0"}

YAML = """\
name: preflight
model: {model}
data: {{file: {data}}}
metric: top1
runtime: {runtime}
variants: {{float32: []}}
"""


@pytest.fixture(scope="session")
def files(tmp_path_factory) -> Path:
    """The folder that ``preflight_models.py`` fills."""
    folder = tmp_path_factory.mktemp("preflight_models")
    script = ROOT / "tests" / "preflight_models.py"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    made = subprocess.run([sys.executable, str(script), str(folder)], capture_output=True, text=True, env=environment)
    assert made.returncode == 0, made.stderr
    return folder


def evidence(snr_db: float) -> StepEvidence:
    return StepEvidence("export", 0, 0, (), 0, 0, 0.0, snr_db, 0)


class Flight:
    """One experiment on the files, its cache, and what its stages said."""

    def __init__(self, files: Path, folder: Path, runtime: str, **changes: object) -> None:
        (folder / "e.yaml").write_text(
            YAML.format(model=files / "float32.tflite", data=files / "data.npz", runtime=runtime)
        )
        self.cache = Cache(folder / "cache")
        self.experiment = replace(load_experiment(folder / "e.yaml"), **changes)
        self.samples = npz_samples(files / "data.npz", self.cache, None, None)
        self.files = files
        self.expected = files / "float32" / "expected"

    def variant(self, name: str, model: Path | None = None, snr_db: float = 40.0) -> VariantRecord:
        """Return a variant whose file has ``snr_db`` in TensorFlow."""
        path = model or self.files / name / "model.tflite"
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        artifact = Artifact(digest, str(path), len(content), 0, (), (), (), {}, (evidence(snr_db),))
        return VariantRecord(name, (), artifact, None, None, None, ())

    def check(self, *variants: VariantRecord, version: str = "") -> dict[str, VariantRecord]:
        target = RuntimeInfo(self.experiment.runtime, version or VERSIONS[self.experiment.runtime])
        checked = check_variants(self.experiment, target, variants, self.samples, self.cache, NoProgress())
        return {variant.name: variant for variant in checked}


@pytest.fixture
def flight(files, tmp_path):
    return lambda runtime, **changes: Flight(files, tmp_path, runtime, **changes)
