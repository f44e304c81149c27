"""What a delegate has taken over of a model: in short for the result, operator by operator for the job's file."""

from __future__ import annotations

import json

from device_agent.protocol import Delegation
from device_agent.runtimes import Model


def delegation_of(model: Model, delegate: str, file_name: str) -> Delegation:
    """Return how many operators of ``model`` ``delegate`` computes; ``file_name`` is where the list will be.

    The counts are 0 where the runtime does not tell. An operator counts as delegated only where that is known.
    """
    operators = model.operators()
    left = [operator.name for operator in operators if not operator.delegated]
    return Delegation(
        delegate=delegate,
        operators=len(operators),
        delegated=len(operators) - len(left),
        left=tuple(sorted(set(left))),
        file_name=file_name,
    )


def operators_to_bytes(model: Model) -> bytes:
    """Return the operators as JSON: a list of ``{"place", "name", "delegated"}`` in the flatbuffer's order."""
    listed = [
        {"place": place, "name": operator.name, "delegated": operator.delegated}
        for place, operator in enumerate(model.operators())
    ]
    return json.dumps(listed, indent=1).encode("ascii")
