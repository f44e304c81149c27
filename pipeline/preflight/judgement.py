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
_SUSPECTS = {
    "int16": 'it has int16 activations, which not every operator takes there; "quantization: {mode: int8}" has none',
    "int4": 'it has int4 weights, which not every operator takes there; "runtime: litert" takes more',
}


def unable(outcome: Outcome) -> str:
    """Return why a trial says nothing of the artifact; empty when it does."""
    if isinstance(outcome, Failure) and outcome.kind in ("runtime", "disk", "internal"):
        return f"not run before the push: {outcome.message}"
    return ""


def problem_of(outcome: Outcome, artifact: Artifact, experiment: Experiment, environment: Environment) -> str:
    """Return why an artifact is not to be pushed, with the setting that avoids it where there is one; or nothing."""
    where = f"{environment.runtime} {environment.version} on this machine"
    if isinstance(outcome, Failure):
        suspects = _suspects(artifact) if outcome.kind in _VERBS else ()
        return "; ".join((f"{where} {_VERBS.get(outcome.kind, 'has no answer')}: {outcome.message}", *suspects))
    parity = outcome.parity if isinstance(outcome, Scored) else ()
    far_off = [output for output in parity if output.snr_db is not None and output.snr_db < experiment.min_snr_db]
    if not far_off:
        return ""
    said = "; ".join(_said(output) for output in far_off)
    return (
        f"{where} does not compute what {experiment.model.name} does in TensorFlow: {said}; "
        f"min_snr_db is {experiment.min_snr_db:g}; "
        f"{_cause(artifact, experiment)}"
    )


def _said(output: OutputParity) -> str:
    return (
        f'output "{output.output}" has a signal-to-noise ratio of {output.snr_db:.1f} dB over {output.samples} samples'
    )


def _cause(artifact: Artifact, experiment: Experiment) -> str:
    """Tell a runtime that computes wrongly from a model that became another function."""
    here = artifact.evidence[-1].snr_db
    if here is not None and here < experiment.min_snr_db:
        return f"TensorFlow has {here:.1f} dB with it: it is another function; lower min_snr_db if that is meant"
    found = "no difference at all" if here is None else f"{here:.1f} dB"
    return (
        f"TensorFlow has {found} with it, so the runtime computes it wrongly; choose another; its operators: "
        f"{', '.join(_operators(artifact))}"
    )


def _operators(artifact: Artifact) -> list[str]:
    graph = read_model(Path(artifact.path).read_bytes()).main
    return sorted({f"{operator.name} version {operator.version}" for operator in graph.operators})


def _suspects(artifact: Artifact) -> tuple[str, ...]:
    """Return what is known to be more than some runtimes can do, with the operators that are given it."""
    graph = read_model(Path(artifact.path).read_bytes()).main
    found: dict[str, set[str]] = {}
    for operator in graph.operators:
        for tensor in (graph.tensors[place] for place in operator.inputs if place >= 0):
            if tensor.dtype in _SUSPECTS and tensor.constant == (tensor.dtype == "int4"):
                found.setdefault(tensor.dtype, set()).add(f"{operator.name} version {operator.version}")
    return tuple(f"{_SUSPECTS[dtype]} ({', '.join(sorted(names))})" for dtype, names in sorted(found.items()))
