"""From variants to artifacts: each step is built once, in a process of its own, and kept by what it was made from."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import threading
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cache as cached
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from device_agent import metrics
from pipeline import compression
from pipeline.cache import Cache, key_of
from pipeline.config import Experiment, Step, Variant
from pipeline.errors import DataError, ModelError
from pipeline.model_files import Format, detect_format
from pipeline.results.record import Artifact, TensorInfo
from pipeline.samples import Samples, file_sha256
from pipeline.step_process import Report, RunningSteps, StepProcess

TOOLCHAIN = ("tensorflow", "tf_keras", "keras", "tensorflow-model-optimization", "numpy")


@dataclass(frozen=True)
class SourceModel:
    """The model as the user has it: its file, our copy of it, format, content hash, and what goes in and out."""

    path: Path
    kept: Path
    format: Format
    sha256: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]


@dataclass(frozen=True)
class _Node:
    """One thing to build: a step process, and the key of everything that went into it."""

    key: str
    process: StepProcess


@dataclass(frozen=True)
class Builder:
    """Builds what one experiment needs; entries that are in the cache are not built again."""

    experiment: Experiment
    samples: Samples
    cache: Cache
    # Two variants may share a step: whoever comes second waits for the first, then finds it in the cache.
    _locks: dict[str, threading.Lock] = field(default_factory=lambda: defaultdict(threading.Lock))
    _running: RunningSteps = field(default_factory=RunningSteps)

    def inspect(self) -> SourceModel:
        """Return what the experiment's model takes and gives.

        Raises:
            ModelError: if it is missing, cannot be loaded, or has not one input and one output.
        """
        path = self.experiment.model
        kind = detect_format(path)
        digest = content_sha256(path)
        kept = self._keep(path, digest)
        key = key_of("inspect", digest, kind, toolchain())
        request = {"kind": "inspect", "source": str(kept), "format": kind}
        folder, _ = self._built(_Node(key, self._process(f"inspect {path.name}", request)), lambda fraction, text: None)
        facts = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        inputs, outputs = (tuple(map(_tensor, facts[end])) for end in ("inputs", "outputs"))
        if len(inputs) != 1 or len(outputs) != 1:
            raise ModelError(f"model {path}: has {len(inputs)} inputs and {len(outputs)} outputs; expected one of each")
        return SourceModel(path, kept, kind, digest, inputs, outputs)

    def build(self, source: SourceModel, variant: Variant, report: Report) -> tuple[Artifact, bool]:
        """Return the artifact of a variant, and whether all of it came from the cache.

        Raises:
            StepError, ModelError, StorageError: naming the variant and the step.
        """
        nodes = self._chain(source, variant)
        fresh = False
        for index, node in enumerate(nodes):
            folder, was_there = self._built(
                node,
                lambda fraction, text, index=index: report((index + fraction) / len(nodes), text),  # type: ignore[misc]
            )
            fresh = fresh or not was_there
        report(1.0, "done")
        return _artifact(folder, variant), not fresh

    def _keep(self, path: Path, digest: str) -> Path:
        """Copy the model into the cache, by its hash: what is built under a key is built from just that content."""
        with self.cache.entry("models", digest) as (folder, was_there):
            if not was_there:
                with self.cache.writing(folder):
                    (shutil.copytree if path.is_dir() else shutil.copyfile)(path, folder / path.name)
                if content_sha256(folder / path.name) != digest:
                    raise ModelError(f"model {path}: changed while it was read; run again")
        return next((self.cache.folder / "models" / digest).iterdir())

    def stop(self) -> None:
        """End every step that is still under way; none can be started afterwards."""
        self._running.stop()

    def _chain(self, source: SourceModel, variant: Variant) -> list[_Node]:
        nodes: list[_Node] = []
        path, kind, key = source.kept, source.format, source.sha256
        rewriting = [step for step in variant.steps if compression.rewrites(step.technique)]
        configuring = [step for step in variant.steps if not compression.rewrites(step.technique)]
        for step in rewriting:
            node = self._node("rewrite", source, key, path, kind, [step], f"{variant.name}: {step.technique}")
            nodes.append(node)
            path, kind, key = self.cache.folder / "builds" / node.key / "model.keras", "keras2", node.key
        return [*nodes, self._node("export", source, key, path, kind, configuring, f"{variant.name}: export")]

    def _node(
        self, work: str, source: SourceModel, source_key: str, path: Path, kind: Format, steps: list[Step], label: str
    ) -> _Node:
        data = {
            "scale": self.samples.scale,
            "offset": self.samples.offset,
            "seed": self.experiment.seed,
            "dtype": source.inputs[0].dtype,
            # Only the conversion looks at where the flatbuffer will run: another runtime needs no other training.
            "runtime": self.experiment.runtime if work == "export" else "",
        }
        described = [{"technique": step.technique, "settings": step.settings} for step in steps]
        key = key_of(work, source_key, kind, described, data, self.samples.training_sha256, toolchain())
        files = {
            "inputs_file": str(self.samples.x_train),
            "labels_file": None if self.samples.y_train is None else str(self.samples.y_train),
        }
        request = {"kind": work, "source": str(path), "format": kind, "steps": described, "data": {**data, **files}}
        return _Node(key, self._process(label, request))

    def _process(self, label: str, request: dict[str, Any]) -> StepProcess:
        return StepProcess(label, request, self.experiment.limits.step_timeout_s)

    def _built(self, node: _Node, report: Report) -> tuple[Path, bool]:
        with self._locks[node.key]:
            with self.cache.entry("builds", node.key) as (folder, was_there):
                if not was_there:
                    node.process.run(folder, report, self._running)
            return self.cache.folder / "builds" / node.key, was_there


def check_fit(experiment: Experiment, source: SourceModel, samples: Samples) -> None:
    """Raise, before anything is built, ModelError or DataError when what is asked does not fit the model."""
    stepped = [variant.name for variant in experiment.variants if variant.steps]
    if source.format == "tflite" and stepped:
        raise ModelError(
            f"{experiment.file}: variant {stepped[0]} has steps, but {source.path} is a finished flatbuffer and is "
            "measured as it is; expected one variant without steps"
        )
    expected, found = source.inputs[0].shape[1:], samples.sample_shape
    if len(expected) != len(found) or any(size not in (0, real) for size, real in zip(expected, found, strict=True)):
        where = experiment.data.file or f"task {experiment.task}"
        wanted = tuple(size or None for size in expected)
        raise DataError(f"{where}: samples have shape {found}; model {source.path} takes {wanted} for one sample")
    if np.dtype(source.inputs[0].dtype).kind in "iu" and (samples.scale, samples.offset) != (1.0, 0.0):
        raise DataError(
            f"{experiment.file}: data.scale is {samples.scale:g} and data.offset {samples.offset:g}, but model "
            f"{source.path} takes {source.inputs[0].dtype}; expected 1 and 0"
        )
    labels = [samples.y_test]
    if samples.y_train is not None and any(map(_trains, experiment.variants)):
        labels.append(samples.y_train)
    for path in labels:
        _check_labels(experiment, source, np.load(path))


def _trains(variant: Variant) -> bool:
    return any(compression.rewrites(step.technique) for step in variant.steps)


def _check_labels(experiment: Experiment, source: SourceModel, labels: npt.NDArray[Any]) -> None:
    # One sample of each label is enough to see whether the metric takes them.
    some = np.unique(labels) if labels.ndim == 1 else labels[:1]
    outputs = np.zeros((len(some), *(size or int(some.max()) + 1 for size in source.outputs[0].shape[1:])))
    try:
        metrics.find(experiment.metric)(outputs, some)
    except ValueError as error:
        raise DataError(f"{experiment.file}: metric {experiment.metric} does not fit: {error}") from error


def content_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, or of a folder's files with their names."""
    if path.is_file():
        return file_sha256(path)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return key_of([[file.relative_to(path).as_posix(), file_sha256(file)] for file in files])


@cached
def toolchain() -> dict[str, str]:
    """Return the versions of everything that a flatbuffer's bytes depend on, our own code by its hash."""
    versions = {name: importlib.metadata.version(name) for name in TOOLCHAIN}
    folder = Path(__file__).parent
    ours = [*sorted((folder / "compression").glob("*.py"))]
    names = ("export", "fine_tuning", "keras_bridge", "model_files", "step_worker", "training_data")
    ours += [folder / f"{name}.py" for name in names]
    return {**versions, "edgepress": key_of([file_sha256(path) for path in ours])[:16]}


def _artifact(folder: Path, variant: Variant) -> Artifact:
    facts = json.loads((folder / "artifact.json").read_text(encoding="utf-8"))
    return Artifact(
        sha256=facts["sha256"],
        path=str(folder / "model.tflite"),
        size_bytes=facts["size_bytes"],
        gzip_bytes=facts["gzip_bytes"],
        inputs=tuple(map(_tensor, facts["inputs"])),
        outputs=tuple(map(_tensor, facts["outputs"])),
        steps=tuple(str(step) for step in variant.steps),
        toolchain=toolchain(),
    )


def _tensor(fields: dict[str, Any]) -> TensorInfo:
    return TensorInfo(**{**fields, "shape": tuple(fields["shape"])})
