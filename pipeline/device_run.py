"""One device's part of a run: what was built is measured there, and what came of it becomes a record."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy.typing as npt

from device_agent.protocol import DeviceInfo, JobSpec, RuntimeInfo, to_json
from pipeline.agent_client import AgentClient
from pipeline.cache import Cache, key_of
from pipeline.config import Experiment
from pipeline.devices.inventory import Device
from pipeline.errors import AgentError
from pipeline.fleet import Board
from pipeline.measuring import MeasuredJob, Placement, baseline_name, job_spec, measure, place
from pipeline.results.comparison import compare
from pipeline.results.record import RunRecord, VariantRecord
from pipeline.results.statistics import numbers
from pipeline.results.validity import invalid_reasons, notes
from pipeline.results.verdict import judge
from pipeline.samples import Samples


@dataclass(frozen=True)
class Built:
    """What there is to measure, the same on every device with one runtime: variants as they are run, and samples."""

    experiment: Experiment
    variants: tuple[VariantRecord, ...]
    samples: Samples
    started_utc: str


@dataclass(frozen=True)
class DeviceRun:
    """A device's record and its finished job; None when no variant could be measured."""

    record: RunRecord
    job: MeasuredJob | None


def check_runtime(client: AgentClient, experiment: Experiment, device: Device) -> RuntimeInfo:
    """Return the runtime as the device has it; one that is down or lacks it is told at once, not after the training.

    Raises:
        DeviceError: if the device cannot be reached, or lacks the runtime.
    """
    runtimes = {runtime.name: runtime for runtime in client.hello.runtimes}
    found = runtimes.get(experiment.runtime)
    if found is None or found.version is None:
        usable = ", ".join(f"{name} {info.version}" for name, info in runtimes.items() if info.version) or "none"
        reason = f": {found.problem}" if found is not None and found.problem else ""
        raise AgentError(f"{device.name} cannot use runtime {experiment.runtime}{reason}; usable: {usable}", code=0)
    return found


def placed(experiment: Experiment, variants: Sequence[VariantRecord]) -> tuple[VariantRecord, ...]:
    """Return every variant that is to be measured once for each number of threads."""
    found: list[VariantRecord] = []
    for variant in variants:
        threads = experiment.threads[:1] if variant.failure else experiment.threads
        found += [replace(variant, name=place(variant.name, count, experiment), threads=count) for count in threads]
    return tuple(found)


def asked_of(built: Built, device: Device) -> str:
    """Return the SHA-256 of all that is asked of ``device``, so that the same need not be asked again."""
    spec, experiment = _spec(built, device), built.experiment
    judged_by = (
        [(line.name, line.limit) for line in experiment.budget],
        experiment.min_snr_db,
        experiment.measure.smallest_effect,
        [(variant.name, variant.steps) for variant in built.variants],
        device.emulated,
    )
    return key_of(to_json(replace(spec, owner="")) if spec else None, judged_by)


def run_on(
    board: Board,
    built: Built,
    run_id: str,
    cache: Cache,
    reuse: bool,
    wait: bool,
    deriving: AbstractContextManager[object],
) -> DeviceRun:
    """Measure ``built`` on a device and return the record; the client of its agent is closed after that.

    Args:
        board: the device.
        built: what is measured.
        run_id: of the record.
        cache: where measurements are kept.
        reuse: whether an earlier one is taken over.
        wait: whether a device that another has leased is waited for.
        deriving: held while numbers are derived, which only one thread can do at a time in any case.

    Raises:
        DeviceError: if the device cannot be reached, is leased or full, or the job could not be done.
        StorageError: if this machine's disk is full.
    """
    with board.client as client:
        # Before the job: a connection that is cut when all is done must not matter any more.
        info = _board_info(client.hello.device, board.device)
        spec, cleared = _spec(built, board.device), _placements(built)
        job = measure(client, spec, cleared, built.samples, cache, reuse, board.progress, wait) if spec else None
    with deriving:
        variants = _with_numbers(built, job, info.emulated) if job else built.variants
        record = _record(built, board.device, info, run_id, variants, job)
    for variant in variants:
        board.progress.variant(variant)
    return DeviceRun(record, job)


def _board_info(info: DeviceInfo, device: Device) -> DeviceInfo:
    """Return what the board says of itself; that it is emulated, or is not, the device's file knows better."""
    return info if device.emulated is None else replace(info, emulated=device.emulated)


def versions() -> dict[str, str]:
    """Return the versions on this machine that a record names."""
    return {"edgepress": importlib.metadata.version("edgepress"), "python": platform.python_version()}


def utc_now() -> str:
    """Return the time as a record has it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _placements(built: Built) -> list[Placement]:
    return [
        Placement(variant.name, variant.artifact, variant.threads)
        for variant in built.variants
        if variant.artifact and not variant.failure
    ]


def _spec(built: Built, device: Device) -> JobSpec | None:
    cleared = _placements(built)
    return job_spec(built.experiment, cleared, built.samples, device.conditions) if cleared else None


def _with_numbers(built: Built, job: MeasuredJob, emulated: bool) -> tuple[VariantRecord, ...]:
    samples = job.samples
    return tuple(_measured(built.experiment, variant, job, samples, emulated) for variant in built.variants)


def _measured(
    experiment: Experiment,
    variant: VariantRecord,
    job: MeasuredJob,
    samples: Mapping[str, npt.NDArray[Any]],
    emulated: bool,
) -> VariantRecord:
    measured = {measurement.model: measurement for measurement in job.result.measurements}
    failed = {failure.model: failure for failure in job.result.failures}
    found, baseline = measured.get(variant.name), measured.get(baseline_name(experiment))
    if found is None:
        return replace(variant, failure=variant.failure or failed.get(variant.name))
    other = baseline if baseline is not None and baseline is not found else None
    derived = numbers(found, samples, other.score.value if other else None, emulated)
    effect = experiment.measure.smallest_effect
    return replace(
        variant,
        measurement=found,
        numbers=derived,
        invalid_reasons=invalid_reasons(found, experiment, job.result, baseline_name(experiment)),
        notes=(*variant.notes, *notes(found, derived, experiment)),
        comparison=compare(found, other, samples, effect, emulated) if other else None,
        operators=job.operators(found.profile),
        reused=job.reused,
    )


def _record(
    built: Built,
    device: Device,
    info: DeviceInfo,
    run_id: str,
    variants: Sequence[VariantRecord],
    job: MeasuredJob | None,
) -> RunRecord:
    experiment, samples = built.experiment, built.samples
    baseline = baseline_name(experiment)
    return RunRecord(
        run_id=run_id,
        experiment=experiment.name,
        experiment_file=str(experiment.file),
        started_utc=built.started_utc,
        finished_utc=utc_now(),
        device_name=device.name,
        transport=device.transport,
        device=info,
        metric=experiment.metric,
        samples=samples.count,
        data_source=samples.source,
        baseline=baseline,
        variants=tuple(variants),
        verdict=judge(variants, experiment.budget, baseline, experiment.measure.smallest_effect),
        host=versions(),
        conditions=device.conditions,
        measured_utc=(job.result.started_utc, job.result.finished_utc) if job else ("", ""),
        before=job.result.before if job else None,
        after=job.result.after if job else None,
    )
