"""The YAML of an experiment, and the frozen values it becomes.

The pydantic sections stand at the border only: ``load_experiment`` returns an ``Experiment`` of plain dataclasses.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from pipeline import compression
from pipeline.results.record import BudgetLine
from pipeline.yaml_file import Location, Section, dotted, load_yaml, mistakes_in, shown

__all__ = [
    "DataSource",
    "Experiment",
    "Limits",
    "Measure",
    "Step",
    "Variant",
    "experiment_schema",
    "load_experiment",
    "load_yaml",
]

TASKS_FOLDER = Path(__file__).parent.parent / "models"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
BUDGET_KEYS = ("accuracy_drop_pp", "size_kib", "p50_ms", "peak_memory_mib")


class DataSection(Section):
    """Where the samples come from, and how they become the model's input."""

    folder: str | None = Field(None, description="a folder with the task's original files")
    file: str | None = Field(None, description="an .npz file with x_test and y_test, and x_train and y_train if any")
    scale: float | None = Field(None, description="a number that every input is multiplied by")
    offset: float | None = Field(None, description="a number that is added to every scaled input")


class MeasureSection(Section):
    """How the numbers are taken on the device."""

    processes: int = Field(5, ge=1, le=1000)
    warmup_s: float = Field(0.5, ge=0, le=3600)
    timing_s: float = Field(1.0, ge=0, le=3600)


class LimitsSection(Section):
    """What a child process may use."""

    step_timeout_s: float = Field(3600, gt=0, le=604800)
    block_timeout_s: float = Field(600, ge=0.1, le=86400)
    memory_mib: int = Field(0, ge=0, le=1 << 24)


class BudgetSection(Section):
    """Limits that the chosen variant must meet; each is optional."""

    accuracy_drop_pp: float | None = Field(None, ge=0, le=100)
    size_kib: float | None = Field(None, gt=0)
    p50_ms: float | None = Field(None, gt=0)
    peak_memory_mib: float | None = Field(None, gt=0)


StepEntry = Annotated[dict[str, dict[str, Any] | None], Field(description="one technique with its settings")]


class ExperimentSection(Section):
    """An experiment file. Give either ``task``, or ``model`` with ``data`` and ``metric``."""

    schema_number: Literal[1] = Field(1, alias="schema")
    name: str = Field(pattern=rf"^{_NAME.pattern}$", description="a name of letters, digits, _ . and -, 64 at most")
    task: str | None = Field(None, description="the name of a reference task")
    model: str | None = Field(None, description="a path to a .keras, .h5 or .tflite file or a SavedModel folder")
    data: DataSection = DataSection()
    metric: str | None = Field(None, description="the name of a metric")
    device: str = Field("local", description="the name of a device")
    runtime: str = Field("litert", description="the name of a runtime")
    threads: int = Field(1, ge=1, le=256)
    seed: int = Field(0, ge=0, le=2**32 - 1)
    baseline: str | None = Field(None, description="the name of a variant")
    variants: dict[str, list[StepEntry]] = Field(min_length=1, description="a mapping of names to lists of steps")
    measure: MeasureSection = MeasureSection()
    limits: LimitsSection = LimitsSection()
    budget: BudgetSection = BudgetSection()


@dataclass(frozen=True)
class Step:
    """One technique of a variant with its validated settings, every default filled in.

    ``asked`` are those that stand in the file: what a reader is shown.
    """

    technique: str
    settings: dict[str, Any]
    asked: dict[str, Any]

    def __str__(self) -> str:
        said = ", ".join(f"{key} {value}" for key, value in self.asked.items())
        return f"{self.technique} ({said})" if said else self.technique


@dataclass(frozen=True)
class Variant:
    """One version of the model: the steps that make it, in order; none for the plain float32 export."""

    name: str
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class DataSource:
    """Where the samples come from; ``folder`` for a task's own files, ``file`` for an .npz."""

    folder: Path | None
    file: Path | None
    scale: float | None
    offset: float | None


@dataclass(frozen=True)
class Measure:
    """How the numbers are taken; see ``device_agent.protocol.MeasureSpec``."""

    processes: int
    warmup_s: float
    timing_s: float


@dataclass(frozen=True)
class Limits:
    """Seconds for one compression step and one block on the device; MiB for one block, 0 without a limit."""

    step_timeout_s: float
    block_timeout_s: float
    memory_mib: int


@dataclass(frozen=True)
class Experiment:
    """An experiment as asked for: nothing is loaded or looked up yet."""

    name: str
    file: Path
    task: str | None
    model: Path
    data: DataSource
    metric: str
    device: str
    runtime: str
    threads: int
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
    section = load_yaml(path, ExperimentSection, _deeper_mistakes)
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
        device=section.device,
        runtime=section.runtime,
        threads=section.threads,
        seed=section.seed,
        baseline=section.baseline or ("float32" if "float32" in names else names[0]),
        variants=tuple(Variant(name, tuple(map(_step, entries))) for name, entries in section.variants.items()),
        measure=Measure(**section.measure.model_dump()),
        limits=Limits(**section.limits.model_dump()),
        budget=tuple(BudgetLine(k, v) for k, v in section.budget.model_dump().items() if v is not None),
    )


def experiment_schema() -> dict[str, Any]:
    """Return the JSON Schema of an experiment file, for editors that complete YAML."""
    return ExperimentSection.model_json_schema(by_alias=True)


def known_tasks() -> list[str]:
    """Return the names of the reference tasks: the modules of ``models``."""
    return sorted(path.stem for path in TASKS_FOLDER.glob("[a-z]*.py"))


def _data_source(section: DataSection, folder: Path) -> DataSource:
    return DataSource(
        folder=None if section.folder is None else folder / Path(section.folder).expanduser(),
        file=None if section.file is None else folder / Path(section.file).expanduser(),
        scale=section.scale,
        offset=section.offset,
    )


def _step(entry: Mapping[str, Any]) -> Step:
    ((technique, settings),) = entry.items()
    validated = compression.settings_of(technique).model_validate(settings or {})
    return Step(technique, validated.model_dump(), validated.model_dump(exclude_unset=True))


def _deeper_mistakes(document: Any) -> list[tuple[Location, str]]:
    """Find what one section alone cannot see: names that must exist, keys that exclude each other, steps."""
    return [*_source_mistakes(document), *_name_mistakes(document), *_variant_mistakes(document)]


def _source_mistakes(document: Mapping[str, Any]) -> list[tuple[Location, str]]:
    given = document.get("data")
    data: Mapping[str, Any] = given if isinstance(given, Mapping) else {}
    if document.get("task") is not None:
        clash = [key for key in ("model", "metric") if document.get(key) is not None]
        found: list[tuple[Location, str]] = [((key,), f'"{key}" and "task" exclude each other') for key in clash]
        if data.get("file") is not None:
            found.append((("data", "file"), 'data.file goes with "model"; a task takes data.folder'))
        return found
    missing: list[tuple[Location, str]] = [
        ((), f'"{key}" is missing; give model, metric and data.file, or one task of: {", ".join(known_tasks())}')
        for key in ("model", "metric")
        if document.get(key) is None
    ]
    if data.get("file") is None:
        missing.append((("data",), '"data.file" is missing; expected an .npz file with x_test and y_test'))
    return missing


def _name_mistakes(document: Mapping[str, Any]) -> list[tuple[Location, str]]:
    from device_agent import metrics, runtimes

    found: list[tuple[Location, str]] = []
    variants = document.get("variants")
    choices = {
        "task": known_tasks(),
        "metric": metrics.known(),
        "runtime": runtimes.known(),
        "baseline": list(variants) if isinstance(variants, Mapping) else [],
    }
    for key, known in choices.items():
        value = document.get(key)
        if isinstance(value, str) and value not in known:
            found.append(((key,), f"{key} is {shown(value)}; expected one of {', '.join(map(str, known))}"))
    return found


def _variant_mistakes(document: Mapping[str, Any]) -> list[tuple[Location, str]]:
    variants = document.get("variants")
    if not isinstance(variants, Mapping):
        return []
    found: list[tuple[Location, str]] = []
    for name, entries in variants.items():
        if not _NAME.fullmatch(str(name)):
            found.append(
                (("variants", name), f'variant name is "{name}"; expected letters, digits, _ . and -, 64 at most')
            )
        for index, entry in enumerate(entries if isinstance(entries, list) else []):
            found += _entry_mistakes(("variants", name, index), entry)
        found += _order_mistakes(name, entries)
    return found


def _entry_mistakes(where: Location, entry: Any) -> list[tuple[Location, str]]:
    if not isinstance(entry, Mapping):
        return []
    if len(entry) != 1:
        return [(where, f"{dotted(where)} has {len(entry)} keys; expected one technique with its settings")]
    ((technique, settings),) = entry.items()
    if technique not in compression.known():
        known = ", ".join(compression.known())
        return [((*where, technique), f'unknown technique "{technique}"; known: {known}')]
    if settings is not None and not isinstance(settings, Mapping):
        return []
    return mistakes_in(settings or {}, compression.settings_of(technique), (*where, technique))


def _order_mistakes(name: str, entries: Any) -> list[tuple[Location, str]]:
    """A step that configures the conversion must be the last, or a later step would rewrite what is gone."""
    if not isinstance(entries, list):
        return []
    techniques = [next(iter(entry)) for entry in entries if isinstance(entry, Mapping) and len(entry) == 1]
    for index, technique in enumerate(techniques[:-1]):
        if technique in compression.known() and not compression.rewrites(technique):
            where: Location = ("variants", name, index)
            return [(where, f"{dotted(where)} is {technique}; it configures the conversion and must come last")]
    return []
