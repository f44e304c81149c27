"""The YAML of an experiment, and the frozen values it becomes.

The pydantic sections stand at the border only: ``load_experiment`` returns an ``Experiment`` of plain dataclasses.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import compression
from pipeline.config.checks import deeper_mistakes
from pipeline.config.sections import DataSection, ExperimentSection, MeasureSection
from pipeline.results.record import BudgetLine
from pipeline.yaml_file import load_yaml


@dataclass(frozen=True)
class Step:
    """One technique of a variant with its validated settings, every default filled in.

    ``asked`` are those that stand in the file: what a reader is shown.
    """

    technique: str
    settings: dict[str, Any]
    asked: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.technique} ({_said(self.asked)})" if self.asked else self.technique


@dataclass(frozen=True)
class Variant:
    """One version of the model: the steps that make it, in order; none for the plain float32 export."""

    name: str
    steps: tuple[Step, ...]

    @property
    def rewriting(self) -> list[Step]:
        """The steps that give another Keras model, which come first."""
        return [step for step in self.steps if compression.rewrites(step.technique)]

    @property
    def converting(self) -> list[Step]:
        """The step that sets up the conversion, if there is one."""
        return [step for step in self.steps if not compression.rewrites(step.technique)]


@dataclass(frozen=True)
class DataSource:
    """Where the samples come from; ``folder`` for a task's own files, ``file`` for an .npz."""

    folder: Path | None
    file: Path | None
    scale: float | None
    offset: float | None


@dataclass(frozen=True)
class Measure:
    """How the numbers are taken; see ``device_agent.protocol.MeasureSpec``.

    ``smallest_effect`` is the relative difference in time that counts as one; ``precision`` and ``sustained_s`` are 0
    when they were not asked for.
    """

    processes: int
    warmup_s: float
    timing_s: float
    precision: float
    time_limit_s: float
    smallest_effect: float
    sustained_s: float
    profile: bool
    batch: int


@dataclass(frozen=True)
class Limits:
    """Seconds for one compression step and one block on the device; a block's MiB and CPU seconds, 0 for no limit.

    ``device_timeout_s`` is for all that is done on one device, from its lease to its result, 0 for no limit.
    ``host_memory_mib`` is for all steps on this machine together, 0 for what is available.
    """

    step_timeout_s: float
    block_timeout_s: float
    device_timeout_s: float
    memory_mib: int
    cpu_s: int
    host_memory_mib: int


@dataclass(frozen=True)
class Experiment:
    """An experiment as asked for: nothing is loaded or looked up yet. ``devices`` are names, or "tag:NAME"."""

    name: str
    file: Path
    task: str | None
    model: Path
    data: DataSource
    metric: str
    devices: tuple[str, ...]
    runtime: str
    threads: tuple[int, ...]
    delegate: str
    min_snr_db: float
    seed: int
    baseline: str
    variants: tuple[Variant, ...]
    measure: Measure
    limits: Limits
    budget: tuple[BudgetLine, ...]


def load_experiment(path: Path) -> Experiment:
    """Return the experiment in the YAML file ``path``; paths in it are relative to its folder.

    Raises:
        ConfigError: with all mistakes in the file.
    """
    section = load_yaml(path, ExperimentSection, deeper_mistakes)
    folder = path.parent
    task = importlib.import_module(f"models.{section.task}") if section.task else None
    names = list(section.variants)
    return Experiment(
        name=section.name,
        file=path,
        task=section.task,
        model=task.CHECKPOINT if task else folder / Path(str(section.model)).expanduser(),
        data=_data_source(section.data, folder),
        metric=section.metric or task.METRIC,  # type: ignore[union-attr]  # checked: no task means a metric is given
        devices=tuple(section.devices or [section.device or "local"]),
        runtime=section.runtime,
        threads=section.threads,
        delegate=section.delegate,
        min_snr_db=section.min_snr_db,
        seed=section.seed,
        baseline=section.baseline or ("float32" if "float32" in names else names[0]),
        variants=tuple(
            Variant(name, tuple(_step(entry, folder) for entry in entries))
            for name, entries in section.variants.items()
        ),
        measure=_measure(section.measure),
        limits=Limits(**section.limits.model_dump()),
        budget=tuple(BudgetLine(k, v) for k, v in section.budget.model_dump().items() if v is not None),
    )


def experiment_schema() -> dict[str, Any]:
    """Return the JSON Schema of an experiment file, for editors that complete YAML."""
    return ExperimentSection.model_json_schema(by_alias=True)


def _data_source(section: DataSection, folder: Path) -> DataSource:
    return DataSource(
        folder=None if section.folder is None else folder / Path(section.folder).expanduser(),
        file=None if section.file is None else folder / Path(section.file).expanduser(),
        scale=section.scale,
        offset=section.offset,
    )


def _measure(section: MeasureSection) -> Measure:
    return Measure(
        processes=section.processes,
        warmup_s=section.warmup_s,
        timing_s=section.timing_s,
        precision=section.precision or 0.0,
        time_limit_s=section.time_limit,
        smallest_effect=section.smallest_effect,
        sustained_s=section.sustained or 0.0,
        profile=section.profile,
        batch=section.batch,
    )


def _step(entry: Mapping[str, Any], folder: Path) -> Step:
    ((technique, settings),) = entry.items()
    validated = compression.settings_of(technique).model_validate(settings or {})
    filled = validated.model_dump()
    for key in compression.file_settings(technique):
        if filled[key] is not None:
            filled[key] = str(folder / Path(filled[key]).expanduser())
    return Step(technique, filled, validated.model_dump(exclude_unset=True))


def _said(asked: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} ({_said(v)})" if isinstance(v, Mapping) else f"{key} {v}" for key, v in asked.items())
