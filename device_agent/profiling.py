"""The profile pass: what an invoke spends on each operator, as the runtime itself times them."""

from __future__ import annotations

import json

import numpy as np

from device_agent import runtimes
from device_agent.blocks import Request
from device_agent.protocol import Profile, blob_path
from device_agent.samples import open_samples
from device_agent.session import failing_as
from device_agent.timing import warm_up

# Operators are timed in whole microseconds: those of a tiny model need thousands of invokes.
_SHORTEST_S = 0.5


def run(request: Request) -> tuple[Profile, dict[str, bytes]]:
    """Profile the model of ``request``, at the batch and with the delegate that it is timed with.

    Returns:
        The profile and its file by name: a JSON list of ``{"place", "name", "source", "mean_ns", "share"}`` in
        the order the operators ran, ``share`` of the sum. Where there is no profile, ``problem`` says why and there
        is no file: the measurement is good without it.

    Raises:
        BlockFailed: of the kind "runtime", "load", "delegate" or "invoke".
    """
    spec = request.spec.models[request.block.model]
    with failing_as("runtime"):
        runtime = runtimes.find(spec.runtime)
    with failing_as("load"):
        try:
            profiler = runtime.open_profiler(request.model_path, spec.threads, spec.delegate, spec.batch)
        except runtimes.ProfileUnavailable as error:
            return Profile(problem=str(error)), {}
    with failing_as("invoke"):
        try:
            return _profile(profiler, request)
        except runtimes.ProfileUnavailable as error:
            return Profile(problem=str(error)), {}


def _profile(profiler: runtimes.Profiler, request: Request) -> tuple[Profile, dict[str, bytes]]:
    measure = request.spec.measure
    _give_samples(profiler, request)
    profiler.invoke()
    warm_up(profiler.invoke, measure.warmup_s)
    operators, invoke_ns = profiler.profile(measure.min_invokes, max(measure.timing_s, _SHORTEST_S))
    name = f"{request.block.name}.json"
    operators_ns = sum(operator.mean_ns for operator in operators)
    profile = Profile(len(invoke_ns), operators_ns, float(np.median(invoke_ns)), name)
    return profile, {name: _content(operators, operators_ns)}


def _give_samples(profiler: runtimes.Profiler, request: Request) -> None:
    """Give the model the job's first samples; where they do not fit it keeps the zeros that it has."""
    data, batch = request.spec.data, request.spec.models[request.block.model].batch
    paths = [blob_path(request.home, sha256) for sha256 in (data.inputs_sha256, data.labels_sha256)]
    try:
        samples = open_samples(paths[0], paths[1], data, profiler.inputs, batch)
    except (OSError, ValueError):
        return
    profiler.set_input(0, samples.input(0))


def _content(operators: tuple[runtimes.TimedOperator, ...], operators_ns: float) -> bytes:
    listed = [
        {
            "place": place,
            "name": operator.name,
            "source": operator.source,
            "mean_ns": operator.mean_ns,
            "share": operator.mean_ns / operators_ns if operators_ns else 0.0,
        }
        for place, operator in enumerate(operators)
    ]
    return json.dumps(listed, indent=1).encode("ascii")
