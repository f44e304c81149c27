"""A calibrated model of which any layers can be left in float32 or int16, by either quantizer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from pipeline.compression import _calibration
from pipeline.compression._ai_edge import Plan, Precision, Ranges, find_ranges, quantized
from pipeline.compression._operators import NamedOperator, layer_names, named_operators
from pipeline.errors import StepError
from pipeline.export import Convertible

MOVES = frozenset(
    ("RESHAPE", "TRANSPOSE", "SQUEEZE", "EXPAND_DIMS", "PACK", "UNPACK", "SPLIT", "SPLIT_V", "SLICE", "STRIDED_SLICE")
)
"""They move numbers and compute none: one is left when what it moves comes from a layer that is."""


@dataclass(frozen=True)
class Selectable(ABC):
    """``content`` is the flatbuffer to quantize and ``operators`` its ``named_operators``."""

    content: bytes
    operators: tuple[NamedOperator, ...]
    integer_io: bool

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that compute in real numbers, in the order in which they run."""
        computing = (o.layer for o in self.operators if o.name not in MOVES and o.dtype == "float32")
        return tuple(dict.fromkeys(computing))

    def kinds(self, layer: str) -> tuple[str, ...]:
        """The names of a layer's operators."""
        return tuple(dict.fromkeys(operator.name for operator in self.operators if operator.layer == layer))

    def places(self, layers: Collection[str]) -> set[int]:
        """Return the places of the operators that are left when ``layers`` are."""
        left: set[int] = set()
        moving: set[str] = set()
        for place, operator in enumerate(self.operators):
            if operator.layer in layers or (operator.name in MOVES and moving.intersection(operator.inputs)):
                left.add(place)
                moving.update(operator.outputs)
        return left

    @abstractmethod
    def leaving(self, layers: Collection[str]) -> bytes:
        """Return the int8 flatbuffer with some layers left in the fallback."""

    @abstractmethod
    def only(self, layer: str) -> bytes:
        """Return the flatbuffer with one layer in int8 and the others in the fallback."""


@dataclass(frozen=True)
class _ByTensorFlow(Selectable):
    """``content`` holds the calibrated ranges; inputs of integers stay as they are."""

    integer_inputs: bool

    def leaving(self, layers: Collection[str]) -> bytes:
        return self._without({self.operators[place].outputs[0] for place in self.places(layers)}, self.integer_io)

    def only(self, layer: str) -> bytes:
        return self._without({o.outputs[0] for o in self.operators if o.layer != layer}, False)

    def _without(self, outputs: Collection[str], integer_io: bool) -> bytes:
        import tensorflow as tf

        # What QuantizationDebugger calls; it would make a second, instrumented file each time, and no integer outputs.
        from tensorflow.lite.python import convert

        content: bytes = convert.mlir_quantize(
            self.content,
            input_data_type=tf.int8 if integer_io and not self.integer_inputs else tf.float32,
            output_data_type=tf.int8 if integer_io else tf.float32,
            denylisted_nodes=sorted(outputs),
        )
        return content


@dataclass(frozen=True)
class _ByAiEdge(Selectable):
    ranges: Ranges

    def leaving(self, layers: Collection[str]) -> bytes:
        wide = dict.fromkeys(self.places(layers), Precision("int16x8"))
        return quantized(self.content, self.operators, Plan(Precision("int8"), wide, self.integer_io), self.ranges)

    def only(self, layer: str) -> bytes:
        places = {place: Precision("int8") for place, o in enumerate(self.operators) if o.layer == layer}
        return quantized(self.content, self.operators, Plan(Precision("int16x8"), places), self.ranges)


def selectable(source: Convertible, indices: list[int], fallback: str, integer_io: bool) -> Selectable:
    """Return a model calibrated with the samples at ``indices``; ``fallback`` is ``float32`` or ``int16``.

    Raises:
        StepError: if it cannot be calibrated.
    """
    layers = layer_names(source.model)
    if fallback == "int16":
        content = source.flatbuffer()
        ranges = find_ranges(content, _calibration.samples(indices, source.data))
        return _ByAiEdge(content, named_operators(content, layers), integer_io, ranges)
    content = source.flatbuffer(lambda converter: _calibrate_only(converter, source, indices))
    operators = named_operators(content, layers)
    if not operators:
        raise StepError("the model has no operators to quantize")
    return _ByTensorFlow(content, operators, integer_io, not source.data.dtype.startswith("float"))


def _calibrate_only(converter: Any, source: Convertible, indices: list[int]) -> None:
    import tensorflow as tf

    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([sample] for sample in _calibration.samples(indices, source.data))
    converter._experimental_calibrate_only = True
