"""Pre-flight: what would crash, be refused or lie on the device is stopped before anything is pushed.

Two looks at each artifact: at its operators and their versions, against what the device's runtime knows; and at what
it computes, in that runtime on this machine, against what the source model answers in TensorFlow, in float32.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from device_agent.blocks import Outcome
from device_agent.protocol import Failure, LimitSpec, RuntimeInfo
from pipeline.building.evidence import EXPECTED, PREFLIGHT_SAMPLES
from pipeline.cache import Cache
from pipeline.config import Experiment
from pipeline.flatbuffer.graph import read_model
from pipeline.preflight.environment import Environment, find_environment, is_installable
from pipeline.preflight.judgement import KIND, problem_of, unable
from pipeline.preflight.operators import known_operators, refused_operators
from pipeline.preflight.trial import Trial, run_trials
from pipeline.reporting.progress import Progress
from pipeline.results.record import Artifact, VariantRecord
from pipeline.samples import Samples, store_array
from pipeline.training.training_data import TrainingData

__all__ = ["KIND", "check_variants"]


def check_variants(
    experiment: Experiment,
    target: RuntimeInfo,
    variants: Sequence[VariantRecord],
    samples: Samples,
    cache: Cache,
    progress: Progress,
) -> list[VariantRecord]:
    """Return the variants: those stopped have a failure of the kind "preflight", the others the device may be given.

    What could not be looked at is a note of each; a runtime that runs no flatbuffers is passed over.

    Args:
        experiment: what is asked.
        target: the runtime as the device has it.
        variants: those that were built, and those that were not.
        samples: a few of the scored ones are run.
        cache: where verdicts are kept.
        progress: gets a stage of its own.
    """
    if not is_installable(target.name) or not _artifacts(variants):
        return list(variants)
    stage = progress.stage("pre-flight", unit="variants")
    checked, told = _compare_operators(variants, target)
    environment = find_environment(target.name)
    told += _told_of(environment, target)
    if environment is not None:
        files = {artifact.sha256: Path(artifact.path) for artifact in _artifacts(checked)}
        trial = make_trial(experiment, environment, _expected(variants), samples, cache)
        stage.update(0, len(files))
        outcomes = run_trials(trial, files, cache, stage.advance)
        checked = [_judged(variant, outcomes, experiment, environment) for variant in checked]
    stopped = [variant.name for variant in checked if variant.failure and variant.failure.kind == KIND]
    stage.finish("; ".join((f"stopped {', '.join(stopped)}" if stopped else "nothing speaks against them", *told)))
    return [_with_notes(variant, told) for variant in checked]


def _artifacts(variants: Iterable[VariantRecord]) -> list[Artifact]:
    return [variant.artifact for variant in variants if variant.artifact and not variant.failure]


def _expected(variants: Iterable[VariantRecord]) -> Path:
    """Return what the source model answers: one and the same beside every artifact."""
    return Path(_artifacts(variants)[0].path).with_name(EXPECTED)


def _with_notes(variant: VariantRecord, told: Sequence[str]) -> VariantRecord:
    return replace(variant, notes=(*variant.notes, *told)) if variant.artifact else variant


def _compare_operators(
    variants: Sequence[VariantRecord], target: RuntimeInfo
) -> tuple[list[VariantRecord], tuple[str, ...]]:
    """Return the variants, stopped where the runtime lacks an operator; and a note when its operators are not known."""
    known = known_operators().get(f"{target.name} {target.version}")
    if known is None:
        listed = ", ".join(known_operators())
        told = (
            f"operators not compared before the push: known are those of {listed}; not {target.name} {target.version}"
        )
        return list(variants), (told,)

    def compared(variant: VariantRecord) -> VariantRecord:
        if variant.artifact is None:
            return variant
        found = refused_operators(read_model(Path(variant.artifact.path).read_bytes()), known)
        return replace(variant, failure=Failure(variant.name, KIND, "; ".join(found))) if found else variant

    return [compared(variant) for variant in variants], ()


def _told_of(environment: Environment | None, target: RuntimeInfo) -> tuple[str, ...]:
    if environment is None:
        return (f'not run before the push: this machine has no Python with {target.name}; "make setup" makes one',)
    if environment.version != target.version:
        return (f"run before the push in {environment.runtime} {environment.version}, not in {target.version}",)
    return ()


def make_trial(
    experiment: Experiment,
    environment: Environment,
    expected: Path,
    samples: Samples,
    cache: Cache,
) -> Trial:
    """Return what the artifacts are run with: samples drawn by the seed, the limits, and the outputs ``expected``."""
    test = TrainingData(samples.x_test, samples.y_test, samples.scale, samples.offset, experiment.seed, "")
    indices, limits = test.fixed_indices(PREFLIGHT_SAMPLES), experiment.limits
    inputs, labels = (np.load(file, mmap_mode="r")[indices] for file in (samples.x_test, samples.y_test))
    return Trial(
        environment=environment,
        # The GPU is the device's own; the same file runs on the processor wherever it does not.
        delegate="xnnpack" if experiment.delegate == "gpu" else experiment.delegate,
        inputs=store_array(inputs, cache),
        labels=store_array(labels, cache),
        samples=len(indices),
        scale=samples.scale,
        offset=samples.offset,
        metric=experiment.metric,
        limits=LimitSpec(limits.block_timeout_s, limits.memory_mib, limits.cpu_s),
        batch=experiment.measure.batch,
        expected=expected,
    )


def _judged(
    variant: VariantRecord, outcomes: dict[str, Outcome], experiment: Experiment, environment: Environment
) -> VariantRecord:
    outcome = outcomes.get(variant.artifact.sha256) if variant.artifact and not variant.failure else None
    if variant.artifact is None or outcome is None:
        return variant
    if note := unable(outcome):
        return replace(variant, notes=(*variant.notes, note))
    problem = problem_of(outcome, variant.artifact, experiment, environment)
    detail = outcome.detail if isinstance(outcome, Failure) else ""
    return replace(variant, failure=Failure(variant.name, KIND, problem, detail)) if problem else variant
