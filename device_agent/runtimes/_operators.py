"""Which operators of a flatbuffer a delegate computes, told by the nodes of a TFLite ``Interpreter``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from device_agent.runtimes import Operator

Node = Mapping[str, Any]


def marked_operators(nodes: Sequence[Node], count: int) -> tuple[Operator, ...]:
    """Return the first ``count`` nodes, the flatbuffer's own, marked where a later node, a delegate's, replaces them.

    Both runtimes keep the replaced nodes and put the delegate's behind them, which is how they can be told apart: the
    names differ from version to version. An operator whose result nobody uses counts as not delegated, since no
    delegate's node leads to it.

    Args:
        nodes: each with "op_name", "inputs" and "outputs", the last two indices of tensors, below 0 for none.
        count: how many operators the flatbuffer has.
    """
    own, delegates = nodes[:count], nodes[count:]
    maker_of = {int(tensor): place for place, node in enumerate(own) for tensor in node["outputs"]}
    replaced: set[int] = set()
    for delegate in delegates:
        replaced |= _between(delegate, own, maker_of)
    return tuple(Operator(node["op_name"], place in replaced) for place, node in enumerate(own))


def _between(delegate: Node, own: Sequence[Node], maker_of: Mapping[int, int]) -> set[int]:
    """Return the places of the operators from the delegate's outputs back to its inputs."""
    border, found = {int(tensor) for tensor in delegate["inputs"]}, set()
    wanted = [int(tensor) for tensor in delegate["outputs"]]
    while wanted:
        tensor = wanted.pop()
        place = maker_of.get(tensor)
        if place is None or place in found or tensor in border:
            continue
        found.add(place)
        wanted += [int(source) for source in own[place]["inputs"]]
    return found
