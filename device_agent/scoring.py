"""The score pass: every sample once, the metric of what comes out, and how far the outputs are from the baseline's."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.blocks import Request
from device_agent.delegation import delegation_of, operators_to_bytes
from device_agent.parity import OutputComparison, OutputWriter
from device_agent.protocol import Delegation, OutputParity, Score, Scored
from device_agent.samples import npy_bytes
from device_agent.session import Session, failing_as, open_session

# Outputs are scored in pieces, so that memory stays flat however many samples there are.
_PIECE = 256


def run(request: Request) -> tuple[Scored, dict[str, bytes]]:
    """Score the model of ``request``; return the score and its file, the metric of each sample as float32 [samples]."""
    session = open_session(request)
    names = [tensor.name for tensor in session.model.outputs]
    values, parity = _score(session, request, names)
    value = float(values.mean(dtype=np.float64))
    score = Score(request.spec.metric, value, len(values), request.samples_name)
    taken, listed = _delegation(session, request)
    return Scored(score, parity, taken), {request.samples_name: npy_bytes(values), **listed}


def _delegation(session: Session, request: Request) -> tuple[Delegation | None, dict[str, bytes]]:
    """Return what the delegate took over, and the list by operator as a file; nothing where the runtime is silent."""
    name = f"operators-{request.block.model}.json"
    taken = delegation_of(session.model, request.spec.models[request.block.model].delegate, name)
    return (taken, {name: operators_to_bytes(session.model)}) if taken.operators else (None, {})


def _score(
    session: Session, request: Request, names: list[str]
) -> tuple[NDArray[np.float32], tuple[OutputParity, ...]]:
    count = request.spec.data.samples
    values = np.zeros(count, np.float32)
    with ExitStack() as stack:
        others: OutputWriter | OutputComparison
        if request.spec.models[request.block.model].name == request.spec.baseline:
            others = stack.enter_context(OutputWriter(request.scratch, count))
        else:
            others = OutputComparison(request.scratch)
        for start in range(0, count, _PIECE):
            stop = min(start + _PIECE, count)
            outputs = np.stack([_infer(session, index, others) for index in range(start, stop)])
            values[start:stop] = session.score(outputs, start)
    return values, others.result(names) if isinstance(others, OutputComparison) else ()


def _infer(session: Session, index: int, others: OutputWriter | OutputComparison) -> NDArray[Any]:
    outputs = session.infer(index)
    with failing_as("metric"):
        others.add(outputs)
    return outputs[0]
