"""Which operator a runtime dies of, found by running beginnings of the graph: the dead tell nothing."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable

from pipeline.flatbuffer.graph import DAMAGE, read_model


def culprit(content: bytes, dies: Callable[[bytes], bool]) -> str:
    """Return the last operator of the shortest beginning of a graph that the runtime dies of, in words.

    Empty for a file that the schema's writer cannot write again.

    Args:
        content: a ``.tflite`` file that the runtime dies of.
        dies: whether the runtime dies of a file.
    """
    operators = read_model(content).main.operators
    if not operators:
        return ""
    try:
        _beginning(content, len(operators))
    except DAMAGE:
        return ""
    # Of all of them it dies: that was seen.
    place = bisect_left(range(1, len(operators)), True, key=lambda count: dies(_beginning(content, count)))
    found = operators[place]
    where = f"{place + 1} of {len(operators)}"
    return f"the first operator that it dies of is {found.name} version {found.version}, {where}"


def _beginning(content: bytes, count: int) -> bytes:
    """Return the file with the first ``count`` operators of its graph, and the outputs of the last of these."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    graph = model.subgraphs[0]
    graph.operators = graph.operators[:count]
    graph.outputs = graph.operators[-1].outputs
    model.signatureDefs = []  # they name outputs that are no more
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())
