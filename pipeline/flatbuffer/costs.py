"""What a flatbuffer costs: parameters, and multiply-accumulate operations of one inference."""

from __future__ import annotations

import math
from collections.abc import Callable

from pipeline.flatbuffer.graph import DAMAGE, FlatModel, FlatOperator, FlatTensor, Subgraph, damaged
from pipeline.flatbuffer.loops import trips

_WEIGHT_DTYPES = ("float32", "float16", "int8", "int16", "int4", "uint8")


def weight_tensors(model: FlatModel) -> tuple[FlatTensor, ...]:
    """Return the constants of at least two dimensions that hold weights: no biases, shapes or axes.

    What no operator takes is none: the scales of weights that are quantized block by block are a tensor too.
    """
    return tuple(
        graph.tensors[place]
        for graph in model.subgraphs
        for place in sorted({place for operator in graph.operators for place in operator.inputs if place >= 0})
        if is_weights(graph.tensors[place])
    )


def is_weights(tensor: FlatTensor) -> bool:
    """Whether a tensor is a constant of at least two dimensions that holds real numbers, quantized or not."""
    return tensor.constant and len(tensor.shape) >= 2 and tensor.dtype in _WEIGHT_DTYPES


def parameters(model: FlatModel) -> int:
    """Return how many numbers the weights and biases are: every constant that an operator computes with as a real."""
    return sum(
        math.prod(graph.tensors[place].shape)
        for graph in model.subgraphs
        for place in {place for operator in graph.operators for place in operator.inputs if place >= 0}
        if graph.tensors[place].constant and _is_real(graph.tensors[place])
    )


def macs(model: FlatModel) -> int:
    """Return the multiply-accumulate operations of one invoke: those of convolutions and matrix products.

    Additions, activations and normalizations that were not folded count nothing, as is usual in the field (Howard et
    al., "MobileNets", 2017, count mult-adds so). A loop's body counts as often as its counter says, or once where that
    is not known before it runs; of two branches the dearer one counts.

    Raises:
        ModelError: if an operator's tensors do not fit it.
    """
    try:
        return _of_graph(0, model, frozenset())
    except DAMAGE as error:
        raise damaged(error) from error


def operator_macs(operator: FlatOperator, graph: Subgraph) -> int:
    """Return those of one operator of ``graph``, without the graphs that it calls.

    Raises:
        ModelError: if its tensors do not fit it.
    """
    try:
        return _of_operator(operator, graph)
    except DAMAGE as error:
        raise damaged(error) from error


def _of_graph(index: int, model: FlatModel, callers: frozenset[int]) -> int:
    # No runtime survives a graph that calls itself.
    if index in callers:
        return 0
    graph = model.subgraphs[index]

    def called(other: int) -> int:
        return _of_graph(other, model, callers | {index})

    return sum(_of_operator(each, graph) + _of_calls(each, graph, model, called) for each in graph.operators)


def _of_calls(operator: FlatOperator, graph: Subgraph, model: FlatModel, called: Callable[[int], int]) -> int:
    options = operator.options
    if operator.name == "WHILE":
        condition, body = options.CondSubgraphIndex(), options.BodySubgraphIndex()
        return trips(operator, graph, model.subgraphs[condition]) * called(body) + called(condition)
    if operator.name == "IF":
        return max(called(options.ThenSubgraphIndex()), called(options.ElseSubgraphIndex()))
    return 0


def _of_operator(operator: FlatOperator, graph: Subgraph) -> int:
    def shape(place: int) -> tuple[int, ...]:
        return graph.tensors[place].shape

    if operator.name in ("CONV_2D", "CONV_3D", "DEPTHWISE_CONV_2D"):
        # Every weight meets every output position.
        # A grouped convolution's weights have only the inputs of their group.
        return math.prod(shape(operator.outputs[0])[:-1]) * math.prod(shape(operator.inputs[1]))
    if operator.name == "TRANSPOSE_CONV":
        # Each input position meets every weight.
        return math.prod(shape(operator.inputs[2])[:-1]) * math.prod(shape(operator.inputs[1]))
    if operator.name == "FULLY_CONNECTED":
        units, depth = shape(operator.inputs[1])
        return math.prod(shape(operator.inputs[0])) // depth * depth * units
    if operator.name == "BATCH_MATMUL":
        adjoint = bool(operator.options.AdjX()) if operator.options else False
        depth = shape(operator.inputs[0])[-2 if adjoint else -1]
        return math.prod(shape(operator.outputs[0])) * depth
    if "SEQUENCE_LSTM" in operator.name or "SEQUENCE_RNN" in operator.name:
        return _of_sequence(operator, graph)
    return 0


def _of_sequence(operator: FlatOperator, graph: Subgraph) -> int:
    """Return one multiplication for each weight and step of a fused recurrent layer; its inputs are [batch, time, …] or
    [time, batch, …], and the batch is 1."""
    steps = math.prod(graph.tensors[operator.inputs[0]].shape[:2])
    weights = (graph.tensors[place] for place in operator.inputs[1:] if place >= 0)
    return steps * sum(math.prod(tensor.shape) for tensor in weights if tensor.constant and len(tensor.shape) == 2)


def _is_real(tensor: FlatTensor) -> bool:
    # A quantized bias is an int32 with scales; axes and shapes have none.
    return tensor.dtype in _WEIGHT_DTYPES or tensor.scales.size > 0
