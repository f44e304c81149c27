"""The model as the steps read it: kept by its content, and an ONNX file converted once."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.building import memory
from pipeline.building.artifacts import ModelFile, toolchain
from pipeline.building.kept_files import keep
from pipeline.building.running_steps import RunningSteps
from pipeline.building.step_process import Report, StepProcess
from pipeline.cache import Cache, key_of
from pipeline.config import Experiment
from pipeline.errors import ModelError
from pipeline.model_formats.model_files import detect_format
from pipeline.samples import Samples, store_array

ONNX_PACKAGES = ("onnx", "onnx2keras", "onnxruntime")


def take_in(experiment: Experiment, cache: Cache) -> ModelFile:
    """Return the experiment's model, copied into the cache.

    Raises:
        ModelError: if it is missing, is none of the formats, or cannot be read here.
    """
    path = experiment.model
    if experiment.task is not None and not path.exists():
        raise ModelError(
            f'{experiment.file}: task {experiment.task} has no checkpoint yet; make it with "edgepress train '
            f'{experiment.task}"'
        )
    kind = detect_format(path)
    if kind == "onnx":
        _check_packages(path)
    kept, digest = keep(path, cache)
    return ModelFile(path, kept, kind, digest, digest)


def converted(
    model: ModelFile, experiment: Experiment, samples: Samples, cache: Cache, steps: RunningSteps, report: Report
) -> tuple[ModelFile, Samples]:
    """Return an ONNX model as a Keras model or a SavedModel, and the samples as that takes them; others as they are.

    The samples are given as the ONNX model takes them. Where those have channels first, as in [samples, channels,
    height, width], the converted model takes them last, and the samples are laid out so, once.

    Raises:
        ModelError: if it cannot be converted, or gives other outputs; the message names the operator.
        DataError: if the samples are not what the ONNX model takes.
    """
    if model.format != "onnx":
        return model, samples
    data = {
        **{"inputs_file": str(samples.x_train), "labels_file": None, "scale": samples.scale, "offset": samples.offset},
        **{"seed": experiment.seed, "runtime": "", "dtype": "float32", "teacher": None},
    }
    versions = {name: importlib.metadata.version(name) for name in ONNX_PACKAGES}
    key = key_of("onnx", model.sha256, {**data, "inputs_file": samples.x_train.stem}, versions, toolchain())
    request = {"kind": "onnx", "source": str(model.kept), "data": data}
    process = StepProcess(f"model {model.path}", request, experiment.limits.step_timeout_s)
    with cache.entry("builds", key) as (folder, was_there):
        if not was_there:
            process.run(folder, report, steps)
    folder = cache.folder / "builds" / key
    facts = json.loads((folder / "onnx.json").read_text(encoding="utf-8"))
    functions, converters = tuple(facts["functions"]), tuple(versions.items())
    made = ModelFile(model.path, folder / facts["file"], facts["format"], model.sha256, key, functions, converters)
    return made, _channels_last(samples, cache) if facts["moved"] else samples


def memory_plan(experiment: Experiment, model: ModelFile, samples: Samples) -> memory.MemoryPlan:
    """Return how much memory a step needs, and how much there is.

    Raises:
        ModelError: with both numbers, when not even one step fits.
    """
    trains = any(variant.rewriting for variant in experiment.variants)
    shape = np.load(samples.x_train, mmap_mode="r").shape if trains else (0,)
    size = _size_bytes(model.kept)
    plan = memory.plan(size, 4 * int(np.prod(shape)), experiment.limits.host_memory_mib)
    plan.check(model.path, size)
    return plan


def _size_bytes(path: Path) -> int:
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())


def _check_packages(path: Path) -> None:
    missing = [name for name in ONNX_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ModelError(
            f'model {path}: an ONNX file needs {", ".join(missing)}; run "make onnx", or pip install "edgepress[onnx]"'
        )


def _channels_last(samples: Samples, cache: Cache) -> Samples:
    def moved(path: Path) -> Path:
        array: Any = np.load(path, mmap_mode="r")
        return store_array(np.moveaxis(array, 1, -1), cache)

    source = f"{samples.source}; laid out with channels last, as the converted model takes them"
    return replace(samples, x_train=moved(samples.x_train), x_test=moved(samples.x_test), source=source)
