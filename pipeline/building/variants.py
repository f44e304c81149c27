"""From an experiment to its variants: samples are fetched, the model taken in, every step done, each once."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from device_agent.protocol import Failure
from pipeline.building.artifacts import Builder, ModelFile, SourceModel, Survey
from pipeline.building.fit import check_fit
from pipeline.building.intake import converted, memory_plan, take_in
from pipeline.building.running_steps import RunningSteps
from pipeline.cache import Cache
from pipeline.config import Experiment, Variant
from pipeline.errors import ModelError, StepError
from pipeline.reporting import format
from pipeline.reporting.progress import Progress
from pipeline.results.record import Artifact, VariantRecord
from pipeline.samples import Samples, fetch_samples

_Result = TypeVar("_Result")


def build_variants(experiment: Experiment, cache: Cache, progress: Progress) -> tuple[list[VariantRecord], Samples]:
    """Return every variant of ``experiment``, built or with the reason why not, and the samples as the device has them.

    Raises:
        UsageError: if the model or the samples do not fit what is asked.
        EdgepressError: if nothing can be built.
    """
    with RunningSteps() as steps:
        builder, source = prepare(experiment, cache, steps, progress)
        return build_all(builder, source, progress), builder.samples


def prepare(
    experiment: Experiment, cache: Cache, steps: RunningSteps, progress: Progress
) -> tuple[Builder, SourceModel]:
    """Fetch the samples and take the model in, up to where all that is wrong with either is known.

    Raises:
        UsageError: a ModelError or DataError, or one that names the key of the experiment.
        EdgepressError: if a step's process fails, or the disk is full.
    """
    samples = _fetch(experiment, cache, progress)
    model = take_in(experiment, cache)
    memory_plan(experiment, model, samples)
    cache.remove_leftovers("builds")
    model, samples = _converted(model, experiment, samples, cache, steps, progress)
    builder = Builder(experiment, model, samples, cache, steps)
    stage = progress.stage("inspect model")
    source = builder.inspect()
    check_fit(experiment, source, samples)
    stage.finish(f"{source.format}, {source.inputs[0].shape[1:]} → {source.outputs[0].shape[1:]}")
    return builder, source


def build_all(builder: Builder, source: SourceModel, progress: Progress) -> list[VariantRecord]:
    """Return every variant, built or with the reason why not; nothing is trained before all steps were asked."""
    refused = _survey(builder, source, progress)

    def build(variant: Variant) -> VariantRecord:
        return _build(builder, source, variant, refused.get(variant.name), progress)

    return _side_by_side(builder, build)


def _fetch(experiment: Experiment, cache: Cache, progress: Progress) -> Samples:
    stage = progress.stage("fetch", unit="bytes")
    samples = fetch_samples(experiment, cache, lambda what, done, total: stage.update(done, total or None))
    stage.finish(samples.source)
    return samples


def _converted(
    model: ModelFile, experiment: Experiment, samples: Samples, cache: Cache, steps: RunningSteps, progress: Progress
) -> tuple[ModelFile, Samples]:
    """Convert an ONNX model, once, and lay the samples out as what it became takes them."""
    if model.format != "onnx":
        return model, samples
    stage = progress.stage("convert ONNX", 100, "%")

    def report(share: float, text: str) -> None:
        stage.update(round(100 * share))

    made, samples = converted(model, experiment, samples, cache, steps, report)
    functions = f"; functions that no step can rewrite: {', '.join(made.functions)}" if made.functions else ""
    stage.finish(f"{made.format}, outputs as in ONNX Runtime{functions}")
    return made, samples


def _side_by_side(builder: Builder, work: Callable[[Variant], _Result]) -> list[_Result]:
    """Return what comes of each variant, as many at once as memory allows."""
    experiment = builder.experiment
    executor = ThreadPoolExecutor(memory_plan(experiment, builder.model, builder.samples).side_by_side)
    try:
        futures = [executor.submit(work, variant) for variant in experiment.variants]
        return [future.result() for future in futures]
    finally:
        executor.shutdown(wait=False, cancel_futures=True)


def _survey(builder: Builder, source: SourceModel, progress: Progress) -> dict[str, StepError | ModelError]:
    """Name what steps will leave as it is, before anything is trained; return why variants cannot be built, by name."""

    def survey(variant: Variant) -> tuple[Survey, ...] | StepError | ModelError:
        try:
            return builder.survey(source, variant)
        except (StepError, ModelError) as error:
            return error

    if not any(variant.rewriting for variant in builder.experiment.variants):
        return {}
    stage, told, refused = progress.stage("survey steps"), set(), {}
    for variant, found in zip(builder.experiment.variants, _side_by_side(builder, survey), strict=True):
        if isinstance(found, Exception):
            refused[variant.name] = found
            continue
        for surveyed in found:
            told |= {(surveyed.step.technique, layer) for layer in surveyed.left}
    stage.finish(f"{format.count(len(told), 'layer')} left as they are" if told else "every layer is treated")
    for technique, layer in sorted(told, key=lambda entry: (entry[0], entry[1].layer, entry[1].reason)):
        progress.stage(technique).finish(f"leaves {layer.layer} as it is: {layer.reason}")
    return refused


def _build(
    builder: Builder,
    source: SourceModel,
    variant: Variant,
    refused: StepError | ModelError | None,
    progress: Progress,
) -> VariantRecord:
    stage = progress.stage(f"compress {variant.name}", 100, "%")
    steps = tuple(str(step) for step in variant.steps)
    artifact: Artifact | None = None
    failure: Failure | None = None
    from_cache = False
    try:
        if refused is not None:
            raise refused
        artifact, from_cache = builder.build(source, variant, lambda share, text: stage.update(round(100 * share)))
        stage.finish("from the cache" if from_cache else f"done, {artifact.size_bytes} bytes")
    except (StepError, ModelError) as error:
        failure = Failure(variant.name, "build", str(error))
        stage.finish(f"failed: {error}")
    record = VariantRecord(variant.name, steps, artifact, None, failure, None, (), from_cache)
    progress.variant(record)
    return record
