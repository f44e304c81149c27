"""The YAML of an experiment as pydantic sections: what keys there are, and what each may be."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from pipeline.yaml_file import Section

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_PERCENT = re.compile(r"(\d+(?:\.\d+)?) ?%")
_DURATION = re.compile(r"(\d+(?:\.\d+)?) ?(s|min|h)")
_SECONDS = {"s": 1, "min": 60, "h": 3600}


def _share(value: object) -> object:
    match = _PERCENT.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("expected a percentage such as 2%")
    return float(match[1]) / 100


def _seconds(value: object) -> object:
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("expected a duration such as 90s, 30min or 2h")
    return float(match[1]) * _SECONDS[match[2]]


def _threads(value: object) -> object:
    counts = value if isinstance(value, list) else [value]
    if not counts or not all(type(count) is int and 1 <= count <= 256 for count in counts):
        raise ValueError("expected an integer from 1 to 256, or a list of such")
    if len(set(counts)) != len(counts):
        raise ValueError("expected no number of threads twice")
    return tuple(counts)


def _no_device_twice(value: list[str]) -> list[str]:
    twice = next((name for name in value if value.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f'expected each device once, and "{twice}" is there twice')
    return value


# Defaults are not validated: a share, seconds and a tuple already.
Share = Annotated[float, BeforeValidator(_share, json_schema_input_type=str), Field(gt=0, le=1)]
Duration = Annotated[float, BeforeValidator(_seconds, json_schema_input_type=str), Field(gt=0, le=604800)]
Day = Annotated[float, BeforeValidator(_seconds, json_schema_input_type=str), Field(gt=0, le=86400)]
Threads = Annotated[tuple[int, ...], BeforeValidator(_threads, json_schema_input_type=int | list[int])]
Devices = Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1), AfterValidator(_no_device_twice)]


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
    precision: Share | None = Field(None, description="a percentage up to 100%, such as 2%: half the interval of p50")
    time_limit: Duration = Field(
        600.0, description="a duration up to 168h, such as 10min: how long timing may go on for that precision"
    )
    smallest_effect: Share = Field(
        0.02, description="a percentage up to 100%, such as 2%: the difference in time that matters"
    )
    sustained: Day | None = Field(
        None, description="a duration up to 24h, such as 30min: how long each variant runs without a pause"
    )
    profile: bool = Field(False, description="true or false: whether each operator is timed, in a pass of its own")
    batch: int = Field(
        1, ge=1, le=1 << 16, description="an integer from 1 to 65536: samples that one timed invoke takes"
    )


class LimitsSection(Section):
    """What a child process may use."""

    step_timeout_s: float = Field(3600, gt=0, le=604800)
    block_timeout_s: float = Field(600, ge=0.1, le=86400)
    device_timeout_s: float = Field(0, ge=0, le=604800)
    memory_mib: int = Field(0, ge=0, le=1 << 24)
    cpu_s: int = Field(0, ge=0, le=604800)
    host_memory_mib: int = Field(0, ge=0, le=1 << 24)


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
    name: str = Field(pattern=rf"^{NAME.pattern}$", description="a name of letters, digits, _ . and -, 64 at most")
    task: str | None = Field(None, description="the name of a reference task")
    model: str | None = Field(None, description="a path to a .keras, .h5, .onnx or .tflite file or a SavedModel folder")
    data: DataSection = DataSection()
    metric: str | None = Field(None, description="the name of a metric")
    device: str | None = Field(None, description="the name of a device, or tag:NAME for all that have the tag")
    devices: Devices | None = Field(None, description="a list of one device or more, each a name or tag:NAME")
    runtime: str = Field("litert", description="the name of a runtime")
    threads: Threads = Field((1,), description="an integer, or a list of integers to try each")
    delegate: Literal["xnnpack", "none", "gpu"] = "xnnpack"
    min_snr_db: float = Field(5.0, ge=-400, le=400)
    seed: int = Field(0, ge=0, le=2**32 - 1)
    baseline: str | None = Field(None, description="the name of a variant")
    variants: dict[str, list[StepEntry]] = Field(min_length=1, description="a mapping of names to lists of steps")
    measure: MeasureSection = MeasureSection()
    limits: LimitsSection = LimitsSection()
    budget: BudgetSection = BudgetSection()
