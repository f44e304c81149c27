"""Flatbuffers of at most one operator, put together without TensorFlow."""

from __future__ import annotations

import flatbuffers
from ai_edge_litert import schema_py_generated as schema


def of_code(code: int, version: int, custom: str = "", used: bool = False) -> bytes:
    """Return a model that names one operator; ``used`` also puts it between its input and its output."""
    named = schema.OperatorCodeT()
    named.builtinCode, named.deprecatedBuiltinCode, named.version = code, min(code, 127), version
    named.customCode = custom or None
    graph = schema.SubGraphT()
    graph.tensors, graph.inputs, graph.outputs = [_tensor("x"), _tensor("y")], [0], [1 if used else 0]
    graph.operators = [_operator()] if used else []
    model = schema.ModelT()
    model.version, model.operatorCodes, model.buffers, model.subgraphs = 3, [named], [schema.BufferT()], [graph]
    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _tensor(name: str) -> schema.TensorT:
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.buffer = name, [1], 0
    return tensor


def _operator() -> schema.OperatorT:
    operator = schema.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = 0, [0], [1]
    return operator
