"""What one TensorFlow step does, in the process that ``step_server`` has forked for it.

Progress and, at the end, the outcome go to the parent as one JSON object a line on the step's channel; whatever
TensorFlow prints goes to standard error, which the parent keeps as the step's log.
"""

from __future__ import annotations

import errno
import functools
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from pipeline import compression, export
from pipeline.building import evidence
from pipeline.building.survey import survey
from pipeline.errors import EdgepressError, ModelError, StepError
from pipeline.flatbuffer.recipe import Recipe, RecipeStep, with_recipe
from pipeline.model_formats import onnx_model
from pipeline.model_formats.model_files import as_tf_keras, load_keras
from pipeline.results.record import LeftLayer, StepEvidence, TensorInfo
from pipeline.training.training_data import Teacher, TrainingData


def do_step(request_file: Path, channel: TextIO) -> None:
    """Read the request, do the step, tell the outcome on ``channel``; what is not a user's to mend is raised."""
    request = json.loads(request_file.read_text(encoding="utf-8"))
    if request["kind"] != "onnx":  # onnx2keras builds what tf.keras is, which must be Keras 3
        # TF-MOT sets it as it is imported; setting it here first makes the order of imports irrelevant.
        os.environ["TF_USE_LEGACY_KERAS"] = "1"
    try:
        with _scratch(Path(request["folder"])):
            _STEPS[request["kind"]](request, channel)
    except EdgepressError as error:
        _tell(channel, error=type(error).__name__, message=str(error))
    except MemoryError:
        _tell(channel, error="StepError", message="not enough memory on this machine")
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        _tell(channel, error="DiskFull", message=str(error))
    else:
        _tell(channel, finished=True)


@contextmanager
def _scratch(folder: Path) -> Iterator[None]:
    """Keep temporary files in ``folder``: AutoGraph's stay until Python ends in its own way, which a step does not."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        tempfile.tempdir = os.environ["TMPDIR"] = scratch
        yield


def _inspect(request: dict[str, Any], channel: TextIO) -> None:
    """Tell what the model takes and gives, and keep its outputs on the scored samples."""
    source = Path(request["source"])
    if request["format"] == "tflite":
        content = source.read_bytes()
        inputs, outputs = export.flatbuffer_tensors(content)
        run: Callable[[Any], Any] = functools.partial(export.flatbuffer_outputs, content)
        types = sorted({tensor.dtype for tensor in evidence.flatbuffer_tensors(content)})
    else:
        model = _load(request)
        evidence.check_weights(model)
        inputs, outputs = export.model_tensors(model)
        _check_batch(inputs[0])
        run = export.Convertible(model, _data(request, inputs[0].dtype)).outputs
        types = []
    facts = {"inputs": [asdict(t) for t in inputs], "outputs": [asdict(t) for t in outputs]}
    _write(request, "model.json", {**facts, "weight_types": types})
    if len(inputs) == len(outputs) == 1 and _fits(inputs[0], request):
        _keep_reference(request, inputs[0].sample_dtype, run)


def _check_batch(tensor: TensorInfo) -> None:
    if tensor.shape and tensor.shape[0] > 1:
        raise ModelError(f"takes batches of {tensor.shape[0]} only; expected any batch, or batches of 1")


def _fits(tensor: TensorInfo, request: dict[str, Any]) -> bool:
    """Whether the samples have the model's shape; the parent tells the user when they have not."""
    shape = np.load(request["score"]["inputs_file"], mmap_mode="r").shape[1:]
    expected = tensor.shape[1:]
    return len(shape) == len(expected) and all(size in (0, real) for size, real in zip(expected, shape, strict=True))


def _keep_reference(request: dict[str, Any], dtype: str, run: Callable[[Any], Any]) -> None:
    score = _score(request, dtype)
    outputs = run(score.inputs)
    export.check_finite(outputs)
    score.write_reference(outputs)
    score.write_expected(run)


def _survey(request: dict[str, Any], channel: TextIO) -> None:
    found = survey(map(_technique, request["steps"]), _load(request), _data(request))
    _write(request, "survey.json", {"steps": found})


def _rewrite(request: dict[str, Any], channel: TextIO) -> None:
    be_deterministic(request["data"]["seed"])
    data, report = _data(request), StepReport(channel, share=0.95)
    model = as_tf_keras(_load(request))
    (step,) = request["steps"]
    technique, settings = _technique(step)
    before = evidence.digest(model)
    left = technique.untreated(model, settings)
    settings.check(left)
    report.left.extend(left)
    rewritten = technique.rewrite(model, settings, data, report)
    if evidence.digest(rewritten) == before:
        raise StepError(f"{step['technique']} changed nothing: layers and weights are what they were")
    evidence.check_weights(rewritten)
    rewritten.save(Path(request["folder"]) / "model.keras")
    report(1.0, "scoring")
    found = evidence.step_evidence(
        step["technique"],
        export.Convertible(rewritten, data).flatbuffer(),
        evidence.model_tensors(rewritten),
        _score(request),
        evidence.model_parameters(rewritten),
    )
    _write(request, "evidence.json", asdict(report.complete(found)))


def be_deterministic(seed: int) -> None:
    """Make training give the same weights in every process: the same inputs and versions, the same SHA-256."""
    import tensorflow as tf
    import tf_keras

    tf_keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()


def _export(request: dict[str, Any], channel: TextIO) -> None:
    report = StepReport(channel, share=0.9)
    label = " → ".join(step["technique"] for step in request["steps"]) or "export"
    if request["format"] == "tflite":
        content = Path(request["source"]).read_bytes()
    else:
        content = _converted(request, report)
        content = with_recipe(content, _recipe(request))
    report(1.0, "scoring")
    found = evidence.step_evidence(label, content, evidence.flatbuffer_tensors(content), _score(request))
    inputs, outputs = export.flatbuffer_tensors(content)
    folder = Path(request["folder"])
    _score(request).copy_expected(folder)
    (folder / "model.tflite").write_bytes(content)
    facts = {
        "sha256": export.sha256(content),
        "size_bytes": len(content),
        "gzip_bytes": export.gzip_size(content),
        "inputs": [asdict(tensor) for tensor in inputs],
        "outputs": [asdict(tensor) for tensor in outputs],
    }
    _write(request, "artifact.json", facts)
    _write(request, "evidence.json", asdict(report.complete(found)))


def _converted(request: dict[str, Any], report: StepReport) -> bytes:
    """Return the flatbuffer of the model by the one step that converts, or the plain float32 one without any."""
    data = _data(request)
    source = export.Convertible(_load(request), data)
    if not request["steps"]:
        content = source.flatbuffer()
    else:
        (step,) = request["steps"]
        technique, settings = _technique(step)
        content = technique.convert(source, settings, data, report)
        settings.check(report.left)
        evidence.check_converted(step["technique"], content)
    export.check_parity(source, content)
    return content


def _recipe(request: dict[str, Any]) -> Recipe:
    """Return what the artifact carries: all of its steps, from the source model on."""
    described, data = request["recipe"], _data(request)
    indices = [index for step in request["steps"] for index in _calibration_indices(step, data)]
    steps = tuple(RecipeStep(**step) for step in described["steps"])
    values = {key: described[key] for key in ("inputs", "toolchain", "runtime")}
    return Recipe(
        steps, seed=data.seed, scale=data.scale, offset=data.offset, calibration_indices=tuple(indices), **values
    )


def _calibration_indices(step: dict[str, Any], data: TrainingData) -> list[int]:
    technique, settings = _technique(step)
    indices: list[int] = (
        technique.calibration_indices(settings, data) if hasattr(technique, "calibration_indices") else []
    )
    return indices


def _convert_onnx(request: dict[str, Any], channel: TextIO) -> None:
    report, folder = StepReport(channel, share=1.0), Path(request["folder"])
    _write(request, "onnx.json", onnx_model.convert(Path(request["source"]), _data(request), folder, report))


_STEPS = {"onnx": _convert_onnx, "inspect": _inspect, "survey": _survey, "rewrite": _rewrite, "export": _export}


@dataclass
class StepReport:
    """What a technique tells: progress goes to the parent at once, ``share`` of the whole step; the rest is kept."""

    channel: TextIO
    share: float
    notes: list[str] = field(default_factory=list)
    left: list[LeftLayer] = field(default_factory=list)

    def __call__(self, fraction: float, text: str) -> None:
        """See ``compression.Report``."""
        _tell(self.channel, fraction=fraction * self.share, text=text)

    def note(self, text: str) -> None:
        """See ``compression.Report``."""
        self.notes.append(text)

    def leave(self, layer: str, reason: str, chosen: bool = False) -> None:
        """See ``compression.Report``."""
        self.left.append(LeftLayer(layer, reason, chosen))

    def complete(self, found: StepEvidence) -> StepEvidence:
        """Return the evidence with what was told."""
        return replace(found, left=tuple(self.left), notes=tuple(self.notes))


def _technique(step: dict[str, Any]) -> tuple[Any, Any]:
    technique = compression.technique(step["technique"])
    return technique, technique.Settings.model_validate(step["settings"])


def _load(request: dict[str, Any]) -> Any:
    return load_keras(Path(request["source"]), request["format"])


def _data(request: dict[str, Any], dtype: str = "") -> TrainingData:
    fields = dict(request["data"])
    teacher = fields.pop("teacher")
    return _training_data(fields, dtype, None if teacher is None else Teacher(Path(teacher["path"]), teacher["format"]))


def _score(request: dict[str, Any], dtype: str = "") -> evidence.HostScore:
    fields = dict(request["score"])
    metric, reference = fields.pop("metric"), Path(fields.pop("reference_file") or request["folder"])
    if reference.is_dir():
        reference /= "reference.npy"
    return evidence.HostScore(_training_data({**request["data"], **fields, "teacher": None}, dtype), metric, reference)


def _training_data(fields: dict[str, Any], dtype: str, teacher: Teacher | None = None) -> TrainingData:
    labels = fields["labels_file"]
    return TrainingData(
        **{
            **fields,
            "inputs_file": Path(fields["inputs_file"]),
            "labels_file": None if labels is None else Path(labels),
            "dtype": dtype or fields["dtype"],
            "teacher": teacher,
        }
    )


def _write(request: dict[str, Any], name: str, facts: dict[str, Any]) -> None:
    (Path(request["folder"]) / name).write_text(json.dumps(facts, indent=1), encoding="utf-8")


def _tell(channel: TextIO, **message: Any) -> None:
    channel.write(json.dumps(message) + "\n")
