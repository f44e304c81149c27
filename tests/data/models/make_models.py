"""Makes the models of this folder: ``python make_models.py FOLDER``, in the LiteRT environment, which has the schema.

* ``network.tflite``: two dense layers, float32 [1, 4] to [1, 4].
* ``recursive_if.tflite``: a conditional whose two branches are the very graph that it stands in. LiteRT 2.3.0 and
  tflite-runtime 2.14.0 both follow it until the stack overflows: SIGSEGV while tensors are allocated.
* ``slice_before_tensor.tflite``: a SLICE that begins 2**27 elements before its input. tflite-runtime 2.14.0 reads there
  at the first invoke: SIGSEGV. LiteRT 2.3.0 refuses it.
* ``slice_midway.tflite``: the same SLICE as the second of three operators, between two dense layers; float32
  [1, 32] to [1, 4].
* ``tile_1gib.tflite``: the sum over 2**26 copies of its input, float32 [1, 4]: 1 GiB between the two operators.

Each was found by writing what a checker may have forgotten and seeing which Python interpreter dies of it.
"""

import sys
from pathlib import Path

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

CODES, OPTIONS, TYPES = schema.BuiltinOperator, schema.BuiltinOptions, schema.TensorType


class Graph:
    """A model of one graph; tensors are addressed by their place. The first is the input, the last the output."""

    def __init__(self, *input_shape: int) -> None:
        self._graph, self._buffers, self._codes = schema.SubGraphT(), [schema.BufferT()], []
        self._graph.tensors, self._graph.operators, self._graph.inputs = [], [], [0]
        self.tensor(*input_shape)

    def tensor(self, *shape: int, kind: int = TYPES.FLOAT32, content: bytes = b"") -> int:
        tensor, place = schema.TensorT(), len(self._graph.tensors)
        tensor.name, tensor.shape, tensor.type, tensor.buffer = b"t%d" % place, list(shape), kind, 0
        if content:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(content, np.uint8)
            tensor.buffer = len(self._buffers)
            self._buffers.append(buffer)
        self._graph.tensors.append(tensor)
        return place

    def integers(self, values: list, *shape: int) -> int:
        return self.tensor(*shape, kind=TYPES.INT32, content=np.array(values, np.int32).tobytes())

    def floats(self, *shape: int) -> int:
        values = np.arange(np.prod(shape)) * 7919 % 17 / 16 - 0.5
        return self.tensor(*shape, content=values.astype(np.float32).tobytes())

    def operator(self, code: int, inputs: list, output: int, kind: int = OPTIONS.NONE, options: object = None) -> int:
        named, operator = schema.OperatorCodeT(), schema.OperatorT()
        named.builtinCode, named.deprecatedBuiltinCode, named.version = code, min(code, 127), 1
        operator.opcodeIndex, operator.inputs, operator.outputs = len(self._codes), inputs, [output]
        operator.builtinOptionsType, operator.builtinOptions = kind, options
        self._codes.append(named)
        self._graph.operators.append(operator)
        return output

    def content(self, output: int) -> bytes:
        model, builder = schema.ModelT(), flatbuffers.Builder(0)
        self._graph.outputs = [output]
        model.version, model.operatorCodes, model.buffers = 3, self._codes, self._buffers
        model.subgraphs = [self._graph]
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def network() -> bytes:
    graph, relu = Graph(1, 4), schema.FullyConnectedOptionsT()
    relu.fusedActivationFunction = schema.ActivationFunctionType.RELU
    kind, inputs = OPTIONS.FullyConnectedOptions, [0, graph.floats(64, 4), graph.floats(64)]
    hidden = graph.operator(CODES.FULLY_CONNECTED, inputs, graph.tensor(1, 64), kind, relu)
    inputs = [hidden, graph.floats(4, 64), graph.floats(4)]
    output = graph.tensor(1, 4)
    return graph.content(graph.operator(CODES.FULLY_CONNECTED, inputs, output, kind, schema.FullyConnectedOptionsT()))


def recursive_if() -> bytes:
    graph, branches = Graph(1, 4), schema.IfOptionsT()
    branches.thenSubgraphIndex = branches.elseSubgraphIndex = 0
    condition = graph.tensor(1, kind=TYPES.BOOL, content=b"\1")
    output = graph.tensor(1, 4)
    return graph.content(graph.operator(CODES.IF, [condition, 0], output, OPTIONS.IfOptions, branches))


def slice_before_tensor() -> bytes:
    graph = Graph(1, 4)
    return graph.content(far_slice(graph, 0))


def slice_midway() -> bytes:
    graph = Graph(1, 32)
    return graph.content(dense(graph, far_slice(graph, dense(graph, 0, 32)), 4))


def far_slice(graph: Graph, source: int) -> int:
    inputs = [source, graph.integers([0, -(1 << 27)], 2), graph.integers([1, 4], 2)]
    return graph.operator(CODES.SLICE, inputs, graph.tensor(1, 4), OPTIONS.SliceOptions, schema.SliceOptionsT())


def dense(graph: Graph, source: int, width: int) -> int:
    inputs, options = [source, graph.floats(4, width), graph.floats(4)], schema.FullyConnectedOptionsT()
    return graph.operator(CODES.FULLY_CONNECTED, inputs, graph.tensor(1, 4), OPTIONS.FullyConnectedOptions, options)


def tile_1gib() -> bytes:
    graph, keep = Graph(1, 4), schema.ReducerOptionsT()
    keep.keepDims = True
    tiles, output = graph.tensor(1 << 26, 4), graph.tensor(1, 4)
    inputs = [0, graph.integers([1 << 26, 1], 2)]
    graph.operator(CODES.TILE, inputs, tiles, OPTIONS.TileOptions, schema.TileOptionsT())
    inputs = [tiles, graph.integers([0], 1)]
    return graph.content(graph.operator(CODES.SUM, inputs, output, OPTIONS.ReducerOptions, keep))


if __name__ == "__main__":
    for make in (network, recursive_if, slice_before_tensor, slice_midway, tile_1gib):
        Path(sys.argv[1], f"{make.__name__}.tflite").write_bytes(make())
