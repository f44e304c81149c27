"""The score pass: every sample once, and the metric of what comes out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from device_agent.blocks import Request
from device_agent.protocol import Score, Scored
from device_agent.session import open_session

# Outputs are scored in pieces, so that memory stays flat however many samples there are.
_PIECE = 256


def run(request: Request) -> tuple[Scored, NDArray[np.float32]]:
    """Score the model of ``request``; return the score and the metric of each sample, float32 [samples]."""
    session = open_session(request)
    count = request.spec.data.samples
    values = np.zeros(count, np.float32)
    for start in range(0, count, _PIECE):
        stop = min(start + _PIECE, count)
        outputs = np.stack([session.infer(index) for index in range(start, stop)])
        values[start:stop] = session.score(outputs, start)
    value = float(values.mean(dtype=np.float64))
    return Scored(Score(request.spec.metric, value, count, request.samples_name), (), None), values
