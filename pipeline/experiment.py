"""The story: config → trained model → compressed artifacts → deployment → measurement → record → report."""

from __future__ import annotations

import importlib.metadata
import platform
import secrets
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from device_agent.protocol import DeviceInfo, Failure, RuntimeInfo
from pipeline.agent_client import AgentClient
from pipeline.building.artifacts import Builder, ModelFile, SourceModel
from pipeline.building.fit import check_fit
from pipeline.building.intake import converted, memory_plan, take_in
from pipeline.cache import Cache
from pipeline.config import Experiment, Variant
from pipeline.devices.inventory import Device, find_device
from pipeline.devices.transport import open_transport
from pipeline.errors import AgentError, ModelError, StepError
from pipeline.measuring import MeasuredJob, Placement, baseline_name, check_job, job_spec, measure, place
from pipeline.preflight import check_variants
from pipeline.reporting import write_reports
from pipeline.reporting.progress import Progress
from pipeline.results.comparison import compare
from pipeline.results.record import Artifact, RunRecord, VariantRecord
from pipeline.results.statistics import numbers
from pipeline.results.validity import invalid_reasons, notes
from pipeline.results.verdict import judge
from pipeline.samples import Samples, fetch_samples


@dataclass(frozen=True)
class Options:
    """How a run is done, as opposed to what is asked of it."""

    output: Path
    cache: Cache
    reuse: bool = False
    wait: bool = False


@dataclass(frozen=True)
class Run:
    """A finished run: its record and the folder that has its reports, artifacts and raw samples."""

    record: RunRecord
    folder: Path


def run_experiment(experiment: Experiment, options: Options, progress: Progress) -> Run:
    """Build every variant, measure all of them in one job on the device, and write the reports.

    A variant that cannot be built or measured is in the record with the reason; the others go on.

    Raises:
        EdgepressError: if nothing can be said of any variant. What was finished stays in the cache.
    """
    started = _utc_now()
    check_job(experiment)
    Cache(options.output).subfolder("")  # that runs cannot be written there is better known now than after them
    device = find_device(experiment.device)
    with AgentClient(open_transport(device), device.name) as client:
        target = _check_runtime(client, experiment, device)
        board = _board(client, device)
        samples = _fetch(experiment, options.cache, progress)
        model = take_in(experiment, options.cache)
        memory = memory_plan(experiment, model, samples)
        model, samples = _converted(model, experiment, samples, options.cache, progress)
        builder = Builder(experiment, model, samples, options.cache)
        variants = _build_all(builder, memory.side_by_side, progress)
        variants = check_variants(experiment, target, variants, samples, options.cache, progress)
        variants = _placed(experiment, variants)
        job = _measure_all(client, experiment, device, variants, samples, options, progress)
        variants = [_with_numbers(experiment, variant, job, board) for variant in variants] if job else variants
        for variant in variants:
            progress.variant(variant)
        record = _record(experiment, device, board, started, samples, variants, job)
    return Run(record, _write(record, variants, job, options.output))


def _check_runtime(client: AgentClient, experiment: Experiment, device: Device) -> RuntimeInfo:
    """Return the runtime as the device has it; one that is down or lacks it is told at once, not after the training."""
    runtimes = {runtime.name: runtime for runtime in client.hello.runtimes}
    found = runtimes.get(experiment.runtime)
    if found is None or found.version is None:
        usable = ", ".join(f"{name} {info.version}" for name, info in runtimes.items() if info.version) or "none"
        reason = f": {found.problem}" if found is not None and found.problem else ""
        raise AgentError(f"{device.name} cannot use runtime {experiment.runtime}{reason}; usable: {usable}", code=0)
    return found


def _board(client: AgentClient, device: Device) -> DeviceInfo:
    """Return what the board says of itself; that it is emulated, or is not, the device's file knows better."""
    board = client.hello.device
    return board if device.emulated is None else replace(board, emulated=device.emulated)


def _fetch(experiment: Experiment, cache: Cache, progress: Progress) -> Samples:
    stage = progress.stage("fetch", unit="bytes")
    samples = fetch_samples(experiment, cache, lambda what, done, total: stage.update(done, total or None))
    stage.finish(samples.source)
    return samples


def _converted(
    model: ModelFile, experiment: Experiment, samples: Samples, cache: Cache, progress: Progress
) -> tuple[ModelFile, Samples]:
    """Convert an ONNX model, once, and lay the samples out as what it became takes them."""
    cache.remove_leftovers("builds")
    if model.format != "onnx":
        return model, samples
    stage = progress.stage("convert ONNX", 100, "%")
    made, samples = converted(model, experiment, samples, cache, lambda share, text: stage.update(round(100 * share)))
    functions = f"; functions that no step can rewrite: {', '.join(made.functions)}" if made.functions else ""
    stage.finish(f"{made.format}, outputs as in ONNX Runtime{functions}")
    return made, samples


def _build_all(builder: Builder, side_by_side: int, progress: Progress) -> list[VariantRecord]:
    experiment = builder.experiment
    stage = progress.stage("inspect model")
    source = builder.inspect()
    check_fit(experiment, source, builder.samples)
    stage.finish(f"{source.format}, {source.inputs[0].shape[1:]} → {source.outputs[0].shape[1:]}")
    _tell_survey(source, progress)
    executor = ThreadPoolExecutor(max_workers=side_by_side)
    try:
        futures = [executor.submit(_build, builder, source, variant, progress) for variant in experiment.variants]
        return [future.result() for future in futures]
    finally:
        executor.shutdown(wait=False, cancel_futures=True)
        builder.stop()


def _tell_survey(source: SourceModel, progress: Progress) -> None:
    """Name what steps will leave as it is, before anything is trained."""
    for surveyed in source.survey:
        for layer in surveyed.left:
            progress.stage(surveyed.step.technique).finish(f"leaves {layer.layer} as it is: {layer.reason}")


def _build(builder: Builder, source: SourceModel, variant: Variant, progress: Progress) -> VariantRecord:
    stage = progress.stage(f"compress {variant.name}", 100, "%")
    steps = tuple(str(step) for step in variant.steps)
    artifact: Artifact | None = None
    failure: Failure | None = None
    from_cache = False
    try:
        artifact, from_cache = builder.build(source, variant, lambda share, text: stage.update(round(100 * share)))
        stage.finish("from the cache" if from_cache else f"done, {artifact.size_bytes} bytes")
    except (StepError, ModelError) as error:
        failure = Failure(variant.name, "build", str(error))
        stage.finish(f"failed: {error}")
    record = VariantRecord(variant.name, steps, artifact, None, failure, None, (), from_cache)
    progress.variant(record)
    return record


def _placed(experiment: Experiment, variants: list[VariantRecord]) -> list[VariantRecord]:
    """Return every variant that is to be measured once for each number of threads."""
    placed = []
    for variant in variants:
        threads = experiment.threads[:1] if variant.failure else experiment.threads
        placed += [replace(variant, name=place(variant.name, count, experiment), threads=count) for count in threads]
    return placed


def _measure_all(
    client: AgentClient,
    experiment: Experiment,
    device: Device,
    variants: list[VariantRecord],
    samples: Samples,
    options: Options,
    progress: Progress,
) -> MeasuredJob | None:
    cleared = [
        Placement(variant.name, variant.artifact, variant.threads)
        for variant in variants
        if variant.artifact and not variant.failure
    ]
    if not cleared:
        return None
    spec = job_spec(experiment, cleared, samples, device.conditions)
    return measure(client, spec, cleared, samples, options.cache, options.reuse, progress, options.wait)


def _with_numbers(experiment: Experiment, variant: VariantRecord, job: MeasuredJob, board: DeviceInfo) -> VariantRecord:
    measured = {measurement.model: measurement for measurement in job.result.measurements}
    failed = {failure.model: failure for failure in job.result.failures}
    found, baseline = measured.get(variant.name), measured.get(baseline_name(experiment))
    if found is None:
        return replace(variant, failure=variant.failure or failed.get(variant.name))
    other = baseline if baseline is not None and baseline is not found else None
    derived = numbers(found, job.samples, other.score.value if other else None, board.emulated)
    effect = experiment.measure.smallest_effect
    return replace(
        variant,
        measurement=found,
        numbers=derived,
        invalid_reasons=invalid_reasons(found, experiment, job.result, baseline_name(experiment)),
        notes=(*variant.notes, *notes(found, derived, experiment)),
        comparison=compare(found, other, job.samples, effect, board.emulated) if other else None,
        operators=job.operators(found.profile),
        reused=job.reused,
    )


def _record(
    experiment: Experiment,
    device: Device,
    board: DeviceInfo,
    started: str,
    samples: Samples,
    variants: list[VariantRecord],
    job: MeasuredJob | None,
) -> RunRecord:
    kept = [
        variant
        if variant.artifact is None
        else replace(variant, artifact=replace(variant.artifact, path=f"models/{variant.name}.tflite"))
        for variant in variants
    ]
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    return RunRecord(
        run_id=f"{stamp}-{experiment.name}-{secrets.token_hex(2)}",
        experiment=experiment.name,
        experiment_file=str(experiment.file),
        started_utc=started,
        finished_utc=_utc_now(),
        device_name=device.name,
        transport=device.transport,
        device=board,
        metric=experiment.metric,
        samples=samples.count,
        data_source=samples.source,
        baseline=baseline_name(experiment),
        variants=tuple(kept),
        verdict=judge(kept, experiment.budget, baseline_name(experiment), experiment.measure.smallest_effect),
        host=_host(),
        conditions=device.conditions,
        measured_utc=(job.result.started_utc, job.result.finished_utc) if job else ("", ""),
        before=job.result.before if job else None,
        after=job.result.after if job else None,
    )


def _write(record: RunRecord, variants: list[VariantRecord], job: MeasuredJob | None, output: Path) -> Path:
    """Write the run's folder under a temporary name and rename it: there is no half a run."""
    folder, part = output / record.run_id, Cache(output).subfolder("") / f".part-{record.run_id}"
    try:
        with Cache(output).writing(folder):
            (part / "models").mkdir(parents=True)
            for variant in variants:
                if variant.artifact is not None:
                    shutil.copyfile(variant.artifact.path, part / "models" / f"{variant.name}.tflite")
            if job is not None:
                shutil.copytree(job.folder, part / "samples", ignore=shutil.ignore_patterns("result.json"))
            write_reports(record, part)
            part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def _host() -> dict[str, str]:
    return {"edgepress": importlib.metadata.version("edgepress"), "python": platform.python_version()}


def _utc_now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
