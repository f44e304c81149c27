"""The operators of a flatbuffer by the layers that they came from, and what they compute with."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pipeline.flatbuffer.costs import is_weights
from pipeline.flatbuffer.graph import FlatModel, FlatOperator, FlatTensor, Subgraph, read_model

_BORDERS = ("QUANTIZE", "DEQUANTIZE")
"""They only change the type, and quantizers put them in."""
_CONTROL = ("WHILE", "IF", "CALL_ONCE")
"""What they take are the first values of a loop, not weights."""
_NUMBER = re.compile(r"_\d+$")


@dataclass(frozen=True)
class LayerNames:
    """The names of a Keras model's layers, none for a graph without them.

    ``numbered``: Keras 3 enters the scope of each layer twice, so that TensorFlow adds a number to its name; layer
    ``conv2d`` is in scope ``conv2d_1``, and layer ``conv2d_1`` in ``conv2d_1_2``.
    """

    known: frozenset[str]
    numbered: bool

    def of(self, path: str) -> str | None:
        """Return the layer of a tensor by its name, such as ``model/conv2d/Conv2D``; None for a name without one."""
        parts = path.split("/")
        for part in reversed(parts):
            bare = _NUMBER.sub("", part)
            for name in (bare, part) if self.numbered else (part, bare):
                if name in self.known:
                    return name
        if len(parts) < 2 or self.known:
            return None
        return parts[1] if len(parts) > 2 else parts[0]


@dataclass(frozen=True)
class NamedOperator:
    """One operator: its layer (its first output's name where there is none), and the names of what it takes and gives.

    ``weights`` is the constant of at least two dimensions that it takes, directly or dequantized; ``dtype`` is the type
    of its first output.
    """

    name: str
    layer: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    weights: FlatTensor | None
    dtype: str

    @property
    def weights_dtype(self) -> str:
        """The type of its weights, empty without any."""
        return self.weights.dtype if self.weights else ""


def layer_names(model: Any) -> LayerNames:
    """Return the names of the layers of a Keras model, nested ones included."""
    import keras
    import tf_keras

    named = frozenset(_names(model)) if isinstance(model, keras.Model | tf_keras.Model) else frozenset()
    return LayerNames(named, isinstance(model, keras.Model))


def _names(model: Any) -> Iterator[str]:
    for layer in getattr(model, "layers", ()):
        yield layer.name
        yield from _names(layer)


def named_operators(content: bytes, layers: LayerNames) -> tuple[NamedOperator, ...]:
    """Return the operators of a flatbuffer, of every subgraph in turn, but those that only change the type.

    Two flatbuffers of one model that differ by what was quantized have the same operators in the same order.
    """
    return tuple(_named(read_model(content), layers))


def _named(model: FlatModel, layers: LayerNames) -> Iterator[NamedOperator]:
    for graph in model.subgraphs:
        makers = {place: operator for operator in graph.operators for place in operator.outputs}
        for operator in graph.operators:
            if operator.name in _BORDERS:
                continue
            inputs, outputs = (
                tuple(graph.tensors[place].name for place in places if place >= 0)
                for places in (operator.inputs, operator.outputs)
            )
            weights = _weights(operator, graph, makers)
            dtype = graph.tensors[operator.outputs[0]].dtype if operator.outputs else ""
            yield NamedOperator(operator.name, _layer(weights, outputs, layers), inputs, outputs, weights, dtype)


def _layer(weights: FlatTensor | None, outputs: tuple[str, ...], layers: LayerNames) -> str:
    """Return an operator's layer: that of its weights, since a fused operator has the names of several layers.

    An output's name begins with what was fused last: an addition with its activation is found from the end.
    """
    names = [
        *(weights.name.split(";") if weights else ()),
        *(part for name in outputs for part in name.split(";")[::-1]),
    ]
    found = (layers.of(name) for name in names)
    return next((layer for layer in found if layer), outputs[0] if outputs else "")


def _weights(operator: FlatOperator, graph: Subgraph, makers: dict[int, FlatOperator]) -> FlatTensor | None:
    found = []
    for place in operator.inputs if operator.name not in _CONTROL else ():
        maker = makers.get(place)
        if maker is not None and maker.name == "DEQUANTIZE":
            place = maker.inputs[0]
        if place >= 0 and is_weights(graph.tensors[place]):
            found.append(graph.tensors[place])
    return max(found, key=lambda tensor: len(tensor.stored), default=None)
