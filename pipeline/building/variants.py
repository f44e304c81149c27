"""From an experiment to its variants: samples are fetched, the model taken in, every step done, each once."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from device_agent.protocol import Failure
from pipeline.building.artifacts import Builder, ModelFile, SourceModel, Survey
from pipeline.building.fit import check_fit
from pipeline.building.intake import converted, memory_plan, take_in
from pipeline.building.running_steps import RunningSteps
from pipeline.cache import Cache
from pipeline.config import Experiment, Variant
from pipeline.errors import ModelError, StepError
from pipeline.reporting.progress import Progress
from pipeline.results.record import Artifact, VariantRecord
from pipeline.samples import Samples, fetch_samples

Refusal = StepError | ModelError


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
    """Return every variant, built or with the reason why not, as many at once as memory allows.

    Nothing is trained before the steps of all variants were asked what they will leave, and that was told.
    """
    variants = builder.experiment.variants
    trained, others = [v for v in variants if v.rewriting], [v for v in variants if not v.rewriting]

    def build(variant: Variant, refused: Refusal | None = None) -> VariantRecord:
        return _build(builder, source, variant, refused, progress)

    executor = ThreadPoolExecutor(memory_plan(builder.experiment, builder.model, builder.samples).side_by_side)
    try:
        surveys = [executor.submit(_surveyed, builder, source, variant) for variant in trained]
        built = {variant.name: executor.submit(build, variant) for variant in others}
        found = [survey.result() for survey in surveys]
        _tell_surveys(found, progress)
        # Training takes longest: it goes before what has not begun.
        waiting = [variant for variant in others if built[variant.name].cancel()]
        for variant, survey in zip(trained, found, strict=True):
            refused = survey if isinstance(survey, Exception) else None
            built[variant.name] = executor.submit(build, variant, refused)
        built.update((variant.name, executor.submit(build, variant)) for variant in waiting)
        return [built[variant.name].result() for variant in variants]
    finally:
        executor.shutdown(wait=False, cancel_futures=True)


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


def _surveyed(builder: Builder, source: SourceModel, variant: Variant) -> tuple[Survey, ...] | Refusal:
    try:
        return builder.survey(source, variant)
    except (StepError, ModelError) as error:
        return error


def _tell_surveys(found: Sequence[tuple[Survey, ...] | Refusal], progress: Progress) -> None:
    """Name what steps will leave as it is, once for each step that says so."""
    surveys = [survey for one in found if not isinstance(one, Exception) for survey in one]
    told = {(survey.step.technique, layer.layer, layer.reason) for survey in surveys for layer in survey.left}
    for technique, layer, reason in sorted(told):
        progress.stage(technique).finish(f"leaves {layer} as it is: {reason}")


def _build(
    builder: Builder,
    source: SourceModel,
    variant: Variant,
    refused: Refusal | None,
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
