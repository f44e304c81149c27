"""What the outcome of a trial says of an artifact."""

from __future__ import annotations

from pathlib import Path

from device_agent.blocks import Outcome
from device_agent.protocol import Failure, OutputParity, Scored
from pipeline.config import Experiment
from pipeline.flatbuffer.graph import read_model
from pipeline.preflight.environment import Environment
from pipeline.results.record import Artifact

KIND = "preflight"

# By the kind of failure; the others speak for themselves.
_VERBS = {"crash": "dies of it", "load": "refuses it", "invoke": "cannot run it"}
_INT16 = 'it has int16 activations, which not every operator takes there; "quantization: {mode: int8}" has none'


def unable(outcome: Outcome) -> str:
    """Return why a trial says nothing of the artifact; empty when it does."""
    if isinstance(outcome, Failure) and outcome.kind in ("runtime", "disk", "internal"):
        return f"not run before the push: {outcome.message}"
    return ""


def problem_of(outcome: Outcome, artifact: Artifact, experiment: Experiment, environment: Environment) -> str:
    """Return why an artifact is not to be pushed, with the setting that avoids it where there is one; or nothing."""
    where = f"{environment.runtime} {environment.version} on this machine"
    if isinstance(outcome, Failure):
        advice = f"; {_INT16}" if outcome.kind in ("load", "invoke", "crash") and _has_int16(artifact) else ""
        return f"{where} {_VERBS.get(outcome.kind, 'has no answer')}: {outcome.message}{advice}"
    parity = outcome.parity if isinstance(outcome, Scored) else ()
    far_off = [output for output in parity if output.snr_db is not None and output.snr_db < experiment.min_snr_db]
    if not far_off:
        return ""
    said = "; ".join(_said(output) for output in far_off)
    return (
        f"{where} does not compute what {experiment.baseline} does: {said}; min_snr_db is {experiment.min_snr_db:g}; "
        f"{_cause(artifact, experiment)}"
    )


def _said(output: OutputParity) -> str:
    return (
        f'output "{output.output}" has a signal-to-noise ratio of {output.snr_db:.1f} dB over {output.samples} samples'
    )


def _cause(artifact: Artifact, experiment: Experiment) -> str:
    """Tell a runtime that computes wrongly from a model that became another function."""
    here = artifact.evidence[-1].snr_db if artifact.evidence else None
    if here is None or here >= experiment.min_snr_db:
        found = "what the source model does" if here is None else f"{here:.1f} dB"
        return f"TensorFlow computes {found} with the same file: the runtime does it wrongly, choose another"
    return f"TensorFlow has {here:.1f} dB with the same file: it is another function; lower min_snr_db if that is meant"


def _has_int16(artifact: Artifact) -> bool:
    tensors = read_model(Path(artifact.path).read_bytes()).main.tensors
    return any(tensor.dtype == "int16" and not tensor.constant for tensor in tensors)
