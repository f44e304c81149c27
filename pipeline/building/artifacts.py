"""From variants to artifacts: each step is built once, in a process of its own, and kept by what it was made from."""

from __future__ import annotations

import importlib.metadata
import json
import threading
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache as cached
from pathlib import Path
from typing import Any

from pipeline import compression
from pipeline.building.kept_files import keep
from pipeline.building.running_steps import RunningSteps
from pipeline.building.step_process import Report, StepProcess
from pipeline.cache import Cache, key_of
from pipeline.config import Experiment, Step, Variant
from pipeline.errors import ModelError, StepError, UsageError
from pipeline.model_formats.model_files import Format
from pipeline.results.record import Artifact, LeftLayer, StepEvidence, TensorInfo
from pipeline.samples import Samples, file_sha256

TOOLCHAIN = (
    *("tensorflow", "tf_keras", "keras", "tensorflow-model-optimization", "ai-edge-quantizer", "ai-edge-litert"),
    "numpy",
)


@dataclass(frozen=True)
class ModelFile:
    """A model: where the user has it and that file's hash, our copy or what was made of it, its format, and its key.

    Of an ONNX model ``key`` is that of the conversion, ``functions`` the parts that became no layers of Keras, and
    ``converters`` the versions of what converted it; otherwise the key is the hash.
    """

    path: Path
    kept: Path
    format: Format
    sha256: str
    key: str
    functions: tuple[str, ...] = ()
    converters: tuple[tuple[str, str], ...] = ()

    @property
    def made_with(self) -> dict[str, str]:
        """The versions of everything that its flatbuffers depend on."""
        return {**toolchain(), **dict(self.converters)}


@dataclass(frozen=True)
class SourceModel(ModelFile):
    """A model of which is known what goes in and out.

    ``weight_types`` are those of a flatbuffer's weights; ``reference`` has the outputs on the samples that every step
    is scored on.
    """

    inputs: tuple[TensorInfo, ...] = ()
    outputs: tuple[TensorInfo, ...] = ()
    weight_types: tuple[str, ...] = ()
    reference: Path = Path()


@dataclass(frozen=True)
class Survey:
    """What a step will leave as it is, known before anything is trained."""

    step: Step
    left: tuple[LeftLayer, ...]


@dataclass(frozen=True)
class Node:
    """One thing to build: a step process, and the key of everything that went into it."""

    key: str
    process: StepProcess


@dataclass(frozen=True)
class Builder:
    """Builds what one experiment needs; entries that are in the cache are not built again."""

    experiment: Experiment
    model: ModelFile
    samples: Samples
    cache: Cache
    steps: RunningSteps
    # Two variants may share a step: whoever comes second waits for the first, then finds it in the cache.
    _locks: dict[str, threading.Lock] = field(default_factory=lambda: defaultdict(threading.Lock))
    # Our copies of the files that settings name, by path: looked at once, so that a run uses one content throughout.
    _files: dict[str, Path] = field(default_factory=dict)

    def inspect(self) -> SourceModel:
        """Return what the experiment's model takes and gives.

        Raises:
            ModelError: if it cannot be loaded, has weights that are not finite, or has not one input and one output.
        """
        path, kind = self.model.path, self.model.format
        data = self._data("")
        key = key_of("inspect", self.model.key, kind, data, self._scored_on(), toolchain())
        request = {"kind": "inspect", "source": str(self.model.kept), "format": kind}
        files = {"data": self._with_files(data), "score": self._score(None)}
        process = self._process(f"model {path}", {**request, **files})
        folder, _ = self._built(Node(key, process), lambda fraction, text: None)
        facts = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        inputs, outputs = (tuple(map(_tensor, facts[end])) for end in ("inputs", "outputs"))
        check_ends(path, inputs, outputs)
        types = tuple(facts["weight_types"])
        return SourceModel(
            **vars(self.model),
            inputs=inputs,
            outputs=outputs,
            weight_types=types,
            reference=folder / "reference.npy",
        )

    def survey(self, source: SourceModel, variant: Variant) -> tuple[Survey, ...]:
        """Return what the steps of a variant will leave; what is not trained is found out as soon by doing it.

        Raises:
            StepError: naming the variant and the step that cannot be done.
        """
        if not variant.rewriting:
            return ()
        steps = [*variant.rewriting, *variant.converting]
        node = self._node("survey", source, source.key, source.kept, source.format, steps, f"{variant.name}: survey")
        folder, _ = self._built(node, lambda fraction, text: None)
        facts = json.loads((folder / "survey.json").read_text(encoding="utf-8"))["steps"]
        for step, found in zip(steps, facts, strict=False):
            if "error" in found:
                raise StepError(f"{variant.name}: {step.technique}: {found['error']}")
        left = (tuple(LeftLayer(**layer) for layer in found["left"]) for found in facts)
        return tuple(map(Survey, steps, left))

    def build(self, source: SourceModel, variant: Variant, report: Report) -> tuple[Artifact, bool]:
        """Return the artifact of a variant, and whether all of it came from the cache.

        Raises:
            StepError, ModelError, StorageError: naming the variant and the step.
        """
        nodes = self.chain(source, variant)
        folders: list[Path] = []
        fresh = False
        for index, node in enumerate(nodes):
            folder, was_there = self._built(
                node,
                lambda fraction, text, index=index: report((index + fraction) / len(nodes), text),  # type: ignore[misc]
            )
            folders.append(folder)
            fresh = fresh or not was_there
        report(1.0, "done")
        return _artifact(folders, variant, source.made_with), not fresh

    def chain(self, source: SourceModel, variant: Variant) -> list[Node]:
        nodes: list[Node] = []
        path, kind, key = source.kept, source.format, source.key
        rewriting, converting = variant.rewriting, variant.converting
        for step in rewriting:
            node = self._node("rewrite", source, key, path, kind, [step], f"{variant.name}: {step.technique}")
            nodes.append(node)
            path, kind, key = self.cache.folder / "builds" / node.key / "model.keras", "keras2", node.key
        export = self._node("export", source, key, path, kind, converting, f"{variant.name}: export")
        # The key holds all of it already: the source's hash and every step before are in the key that it begins with.
        recipe = self._recipe(source, [*rewriting, *converting])
        process = replace(export.process, request={**export.process.request, "recipe": recipe})
        return [*nodes, replace(export, process=process)]

    def _recipe(self, source: SourceModel, steps: list[Step]) -> dict[str, Any]:
        """What an artifact says of how it was made; see ``pipeline.flatbuffer.recipe``."""
        named = zip(("x_train", "y_train"), self.samples.training_sha256, strict=True)
        inputs = {"model": source.sha256, **{name: digest for name, digest in named if digest}}
        return {
            "steps": list(map(self._keyed, steps)),
            "inputs": inputs,
            "toolchain": source.made_with,
            "runtime": self.experiment.runtime,
        }

    def _node(
        self, work: str, source: SourceModel, source_key: str, path: Path, kind: Format, steps: list[Step], label: str
    ) -> Node:
        data = {
            **self._data(source.inputs[0].sample_dtype),
            # Only the conversion looks at where the flatbuffer will run: another runtime needs no other training.
            "runtime": "" if work == "rewrite" else self.experiment.runtime,
        }
        described = [self._described(step) for step in steps]
        teacher = {"path": str(source.kept), "format": source.format}
        # What a step learns from, or is compared with, is the source model, whose hash the first key is.
        samples = (self.samples.training_sha256, self._scored_on())
        key = key_of(work, source_key, kind, list(map(self._keyed, steps)), data, samples, toolchain())
        score = self._score(source.reference)
        request = {"kind": work, "source": str(path), "format": kind, "steps": described, "score": score}
        return Node(key, self._process(label, {**request, "data": {**self._with_files(data), "teacher": teacher}}))

    def _described(self, step: Step) -> dict[str, Any]:
        """Return a step as its process gets it: a file that its settings name by the path of our copy."""
        files = {name: str(path) for name, path in self._step_files(step).items()}
        return {"technique": step.technique, "settings": {**step.settings, **files}}

    def _keyed(self, step: Step) -> dict[str, Any]:
        """Return a step as keys are made of it: a file that its settings name by its content's hash."""
        files = {name: path.parent.name for name, path in self._step_files(step).items()}
        return {"technique": step.technique, "settings": {**step.settings, **files}}

    def _step_files(self, step: Step) -> dict[str, Path]:
        """Return our copies of the files that a step's settings name. Raises UsageError for one that is missing."""
        names = [name for name in compression.file_settings(step.technique) if step.settings[name] is not None]
        for name in names:
            path = Path(step.settings[name])
            if not path.exists():
                raise UsageError(f"{self.experiment.file}: {step.technique}.{name} is {path}: no such file")
            if str(path) not in self._files:
                self._files[str(path)] = keep(path, self.cache)[0]
        return {name: self._files[step.settings[name]] for name in names}

    def _data(self, dtype: str) -> dict[str, Any]:
        samples = self.samples
        values = {"scale": samples.scale, "offset": samples.offset, "seed": self.experiment.seed, "dtype": dtype}
        return {**values, "runtime": "", "teacher": None}

    def _with_files(self, data: dict[str, Any]) -> dict[str, Any]:
        labels = self.samples.y_train
        files = {"inputs_file": str(self.samples.x_train), "labels_file": None if labels is None else str(labels)}
        return {**data, **files}

    def _score(self, reference: Path | None) -> dict[str, Any]:
        files = {"inputs_file": str(self.samples.x_test), "labels_file": str(self.samples.y_test)}
        found = None if reference is None else str(reference)
        return {**files, "metric": self.experiment.metric, "reference_file": found}

    def _scored_on(self) -> tuple[str, ...]:
        """The hashes of what every step is scored on, and the metric."""
        return (self.samples.x_test.stem, self.samples.y_test.stem, self.experiment.metric)

    def _process(self, label: str, request: dict[str, Any]) -> StepProcess:
        return StepProcess(label, request, self.experiment.limits.step_timeout_s)

    def _built(self, node: Node, report: Report) -> tuple[Path, bool]:
        with self._locks[node.key]:
            with self.cache.entry("builds", node.key) as (folder, was_there):
                if not was_there:
                    node.process.run(folder, report, self.steps)
            return self.cache.folder / "builds" / node.key, was_there


def check_ends(path: Path, inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo]) -> None:
    """Raise ModelError unless a model has one input and one output."""
    if len(inputs) != 1 or len(outputs) != 1:
        ends = " and ".join(
            f"{len(tensors)} {what} ({', '.join(sorted(tensor.name for tensor in tensors))})"
            for what, tensors in (("inputs", inputs), ("outputs", outputs))
        )
        raise ModelError(f"model {path}: has {ends}; expected one of each")


@cached
def toolchain() -> dict[str, str]:
    """Return the versions of everything that a flatbuffer's bytes depend on, our own code by its hash."""
    versions = {name: importlib.metadata.version(name) for name in TOOLCHAIN}
    folder = Path(__file__).parents[1]
    rooms = ("compression", "flatbuffer", "model_formats", "training")
    ours = [path for room in rooms for path in sorted((folder / room).glob("*.py"))]
    ours += [
        folder / "export.py",
        *(folder / "building" / f"{name}.py" for name in ("evidence", "step_server", "step_worker", "survey")),
    ]
    return {**versions, "edgepress": key_of([file_sha256(path) for path in ours])[:16]}


def _artifact(folders: list[Path], variant: Variant, made_with: dict[str, str]) -> Artifact:
    folder = folders[-1]
    facts = json.loads((folder / "artifact.json").read_text(encoding="utf-8"))
    return Artifact(
        sha256=facts["sha256"],
        path=str(folder / "model.tflite"),
        size_bytes=facts["size_bytes"],
        gzip_bytes=facts["gzip_bytes"],
        inputs=tuple(map(_tensor, facts["inputs"])),
        outputs=tuple(map(_tensor, facts["outputs"])),
        steps=tuple(str(step) for step in variant.steps),
        toolchain=made_with,
        evidence=tuple(map(_evidence, folders)),
    )


def _evidence(folder: Path) -> StepEvidence:
    from pydantic import TypeAdapter

    return TypeAdapter(StepEvidence).validate_json((folder / "evidence.json").read_bytes())


def _tensor(fields: dict[str, Any]) -> TensorInfo:
    return TensorInfo(**{**fields, "shape": tuple(fields["shape"])})
