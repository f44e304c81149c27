"""How often a loop of a flatbuffer runs, where the file says so: a counter from one constant to another."""

from __future__ import annotations

from pipeline.flatbuffer.graph import FlatOperator, FlatTensor, Subgraph


def trips(loop: FlatOperator, graph: Subgraph, condition: Subgraph) -> int:
    """Return how often the body of a WHILE runs; 1 when it cannot be told.

    TensorFlow's recurrent layers become such loops: of two counters from 0, each less than the number of steps, both
    going up by one.

    Args:
        loop: the operator.
        graph: the graph that it stands in.
        condition: the graph that says whether it goes on.
    """
    passed = [graph.tensors[place] for place in loop.inputs]
    known = [_count(operator, passed, condition) for operator in condition.operators if operator.name == "LESS"]
    counts = [count for count in known if count is not None and count > 0]
    return min(counts, default=1)


def _count(less: FlatOperator, passed: list[FlatTensor], condition: Subgraph) -> int | None:
    counter, limit = (_number(place, passed, condition) for place in less.inputs)
    return None if counter is None or limit is None else limit - counter


def _number(place: int, passed: list[FlatTensor], condition: Subgraph) -> int | None:
    """Return the number that a tensor of the condition has at the start, None when that is not in the file."""
    tensor = passed[condition.inputs.index(place)] if place in condition.inputs else condition.tensors[place]
    return int(tensor.values()[0]) if tensor.constant and tensor.values().size == 1 else None
