"""A ``.tflite`` file as frozen values: tensors, operators and their versions.

The format is ``tensorflow/compiler/mlir/lite/schema/schema.fbs`` of TensorFlow; its reader comes with LiteRT.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import ModelError

_IDENTIFIER = b"TFL3"
DAMAGE = (
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    MemoryError,
    AssertionError,
    RecursionError,
    struct.error,
)
"""What the schema's reader, and arithmetic with its numbers, raise for a file that was overwritten or cut."""
_DTYPES = {
    "FLOAT32": "float32",
    "FLOAT16": "float16",
    "INT32": "int32",
    "UINT8": "uint8",
    "INT64": "int64",
    "BOOL": "bool",
    "INT16": "int16",
    "INT8": "int8",
    "FLOAT64": "float64",
    "UINT32": "uint32",
    "UINT16": "uint16",
    "INT4": "int4",
}

_NUMBERS = (*(name for name in _DTYPES.values() if name != "int4"), "uint64")


@dataclass(frozen=True, eq=False)
class FlatTensor:
    """One tensor. ``stored`` are the bytes of a constant, empty for what is computed; ``scales`` of a quantized one.

    With a ``block_size`` so many values of a row share a scale, and the scales are another tensor's.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    stored: npt.NDArray[np.uint8]
    scales: npt.NDArray[np.float32]
    zero_points: npt.NDArray[np.int64]
    quantized_dimension: int
    sparse: bool
    block_size: int = 0

    @property
    def holds_numbers(self) -> bool:
        """Whether its values are numbers that numpy, or ``values``, can give."""
        return self.dtype == "int4" or self.dtype in _NUMBERS

    @property
    def constant(self) -> bool:
        """Whether its values stand in the file."""
        return self.stored.size > 0

    def values(self) -> npt.NDArray[Any]:
        """Return a constant's values as they are stored, int4 as int8; of a sparse one only those that are kept.

        Raises:
            ModelError: if its bytes are no whole number of values, or it has no numbers.
        """
        try:
            if self.dtype == "int4":
                return _unpacked_int4(self.stored)[: int(np.prod(self.shape))]
            values: npt.NDArray[Any] = self.stored.view(np.dtype(self.dtype))
        except DAMAGE as error:
            raise ModelError(f'tensor "{self.name}" has {self.stored.size} bytes, no {self.dtype}: {error}') from error
        return values


@dataclass(frozen=True)
class FlatOperator:
    """One operator: its name, version, the places of its tensors (-1 for one that is left out), and its options.

    A ``custom`` one is no part of TensorFlow Lite; its name is its author's.
    """

    name: str
    version: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Any
    custom: bool = False


@dataclass(frozen=True)
class Subgraph:
    """A graph of operators, in the order in which they run."""

    tensors: tuple[FlatTensor, ...]
    operators: tuple[FlatOperator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class FlatModel:
    """A whole file; ``subgraphs`` begins with the one that is invoked."""

    subgraphs: tuple[Subgraph, ...]

    @property
    def main(self) -> Subgraph:
        """The graph that is invoked."""
        return self.subgraphs[0]


def read_model(content: bytes) -> FlatModel:
    """Return the model in a ``.tflite`` file.

    Raises:
        ModelError: if the content is no such file, or a damaged one.
    """
    from ai_edge_litert import schema_py_generated as schema

    if content[4:8] != _IDENTIFIER:
        raise ModelError(f"content begins with {content[:8]!r}; expected a .tflite file")
    try:
        model = schema.Model.GetRootAs(content, 0)
        codes = [model.OperatorCodes(place) for place in range(model.OperatorCodesLength())]
        graphs = [model.Subgraphs(place) for place in range(model.SubgraphsLength())]
        if not graphs:
            raise ValueError("it has no graph")
        return FlatModel(tuple(_subgraph(model, graph, codes) for graph in graphs))
    except DAMAGE as error:
        raise damaged(error) from error


def damaged(error: BaseException) -> ModelError:
    """Return the ModelError for what a damaged file made the reader stumble on."""
    return ModelError(f"a damaged .tflite file: {type(error).__name__}: {error}")


def _subgraph(model: Any, graph: Any, codes: list[Any]) -> Subgraph:
    found = Subgraph(
        tensors=tuple(_tensor(model, graph.Tensors(place)) for place in range(graph.TensorsLength())),
        operators=tuple(_operator(graph.Operators(place), codes) for place in range(graph.OperatorsLength())),
        inputs=_places(graph.InputsAsNumpy()),
        outputs=_places(graph.OutputsAsNumpy()),
    )
    _check_places(found)
    return found


def _check_places(graph: Subgraph) -> None:
    """Raise IndexError for a tensor that is not there; -1 stands for an operator's optional one."""
    used = [place for operator in graph.operators for place in (*operator.inputs, *operator.outputs)]
    wrong = [place for place in used if not -1 <= place < len(graph.tensors)]
    wrong += [place for place in (*graph.inputs, *graph.outputs) if not 0 <= place < len(graph.tensors)]
    if wrong:
        raise IndexError(f"it speaks of tensor {wrong[0]} in a graph of {len(graph.tensors)}")


def _tensor(model: Any, tensor: Any) -> FlatTensor:
    type_name = _names("TensorType")[tensor.Type()]
    quantization = tensor.Quantization()
    return FlatTensor(
        name=(tensor.Name() or b"").decode(errors="replace"),
        shape=_places(tensor.ShapeAsNumpy()),
        dtype=_DTYPES.get(type_name, type_name.lower()),
        stored=_stored(model, tensor.Buffer()),
        scales=_array(quantization.ScaleAsNumpy() if quantization else 0, np.float32),
        zero_points=_array(quantization.ZeroPointAsNumpy() if quantization else 0, np.int64),
        quantized_dimension=quantization.QuantizedDimension() if quantization else 0,
        sparse=tensor.Sparsity() is not None,
        block_size=_block_size(quantization),
    )


def _block_size(quantization: Any) -> int:
    from ai_edge_litert import schema_py_generated as schema

    if not quantization or quantization.DetailsType() != schema.QuantizationDetails.BlockwiseQuantization:
        return 0
    table, reader = quantization.Details(), schema.BlockwiseQuantization()
    reader.Init(table.Bytes, table.Pos)
    return int(reader.BlockSize())


def _stored(model: Any, place: int) -> npt.NDArray[np.uint8]:
    buffer = model.Buffers(place)
    if buffer.Size() > 1:
        # In a large file of ai-edge-quantizer's, and in any beyond 2 GiB, the bytes stand behind the flatbuffer.
        whole: npt.NDArray[np.uint8] = np.frombuffer(model._tab.Bytes, np.uint8)
        return whole[buffer.Offset() : buffer.Offset() + buffer.Size()]
    return _array(buffer.DataAsNumpy(), np.uint8)


def _operator(operator: Any, codes: list[Any]) -> FlatOperator:
    code = codes[operator.OpcodeIndex()]
    number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
    name = _names("BuiltinOperator")[number]
    custom = name == "CUSTOM"
    if custom:
        name = (code.CustomCode() or b"CUSTOM").decode(errors="replace")
    inputs, outputs = _places(operator.InputsAsNumpy()), _places(operator.OutputsAsNumpy())
    return FlatOperator(name, code.Version(), inputs, outputs, _options(operator), custom)


def _options(operator: Any) -> Any:
    """Return the operator's table of options as the schema's reader gives it, None where there is none."""
    from ai_edge_litert import schema_py_generated as schema

    table = operator.BuiltinOptions()
    if table is None:
        return None
    reader = getattr(schema, _names("BuiltinOptions")[operator.BuiltinOptionsType()])()
    reader.Init(table.Bytes, table.Pos)
    return reader


@cache
def _names(enumeration: str) -> dict[int, str]:
    from ai_edge_litert import schema_py_generated as schema

    values = vars(getattr(schema, enumeration))
    return {value: name for name, value in values.items() if not name.startswith("_")}


def _places(array: Any) -> tuple[int, ...]:
    # Where there is no vector, the schema's reader gives the number 0.
    return () if isinstance(array, int) else tuple(int(value) for value in array)


def _array(array: Any, dtype: type[Any]) -> npt.NDArray[Any]:
    return np.zeros(0, dtype) if isinstance(array, int) else array


def _unpacked_int4(stored: npt.NDArray[np.uint8]) -> npt.NDArray[np.int8]:
    """Return two signed values of each byte, the lower four bits first."""
    pairs = np.stack([stored & 0xF, stored >> 4], axis=-1).reshape(-1).astype(np.int8)
    unpacked: npt.NDArray[np.int8] = np.where(pairs > 7, pairs - 16, pairs).astype(np.int8)
    return unpacked
