"""What a ``.tflite`` file holds, for a reader: its recipe, operators, tensors, sizes and cost. Loads no TensorFlow."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.errors import ModelError
from pipeline.export import gzip_size
from pipeline.flatbuffer import costs
from pipeline.flatbuffer.graph import FlatModel, FlatTensor, read_model
from pipeline.flatbuffer.recipe import Recipe, recipe_of


@dataclass(frozen=True)
class Quantization:
    """How integers stand for real numbers, ``scale * (integer - zero_point)``: one scale, or one along ``dimension``.

    ``block_size`` is how many values of a row share one, 0 where it is not by blocks; their scales are a tensor then.
    """

    scales: tuple[float, ...]
    zero_points: tuple[int, ...]
    dimension: int
    block_size: int

    @property
    def per_channel(self) -> bool:
        """Whether there is more than one scale."""
        return len(self.scales) > 1


@dataclass(frozen=True)
class InspectedTensor:
    """One tensor of graph number ``graph``. ``size_bytes``, ``zeros`` (a share) and ``distinct`` are of a constant, and
    None for what is computed and where the values are no numbers."""

    graph: int
    name: str
    shape: tuple[int, ...]
    dtype: str
    constant: bool
    size_bytes: int | None = None
    zeros: float | None = None
    distinct: int | None = None
    quantization: Quantization | None = None
    sparse: bool = False


@dataclass(frozen=True)
class InspectedOperator:
    """All operators of one name and version, over all graphs; ``macs`` are of one run of each."""

    name: str
    version: int
    count: int
    macs: int
    custom: bool


@dataclass(frozen=True)
class Inspection:
    """A whole file."""

    path: str
    sha256: str
    size_bytes: int
    gzip_bytes: int
    parameters: int
    macs: int
    recipe: Recipe | None
    inputs: tuple[InspectedTensor, ...]
    outputs: tuple[InspectedTensor, ...]
    operators: tuple[InspectedOperator, ...]
    tensors: tuple[InspectedTensor, ...]

    @property
    def constants(self) -> tuple[InspectedTensor, ...]:
        """The tensors whose values stand in the file."""
        return tuple(tensor for tensor in self.tensors if tensor.constant)


def inspect_file(path: Path) -> Inspection:
    """Return what the ``.tflite`` file at ``path`` holds.

    Raises:
        ModelError: if it is missing, cannot be read, is another file, or a damaged one.
    """
    content = _read(path)
    try:
        model = read_model(content)
        tensors = {
            (place, number): _inspected(place, tensor)
            for place, graph in enumerate(model.subgraphs)
            for number, tensor in enumerate(graph.tensors)
        }
        return Inspection(
            path=str(path),
            sha256=hashlib.sha256(content).hexdigest(),
            size_bytes=len(content),
            gzip_bytes=gzip_size(content),
            parameters=costs.parameters(model),
            macs=costs.macs(model),
            recipe=recipe_of(content),
            inputs=tuple(tensors[0, number] for number in model.main.inputs),
            outputs=tuple(tensors[0, number] for number in model.main.outputs),
            operators=_operators(model),
            tensors=tuple(tensors.values()),
        )
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file; expected a .tflite file") from None
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}; expected a .tflite file") from error


def _operators(model: FlatModel) -> tuple[InspectedOperator, ...]:
    """Return the kinds of operators, the dearest first."""
    macs: dict[tuple[str, int, bool], list[int]] = defaultdict(list)
    for graph in model.subgraphs:
        for operator in graph.operators:
            macs[operator.name, operator.version, operator.custom].append(costs.operator_macs(operator, graph))
    found = [InspectedOperator(name, v, len(each), sum(each), custom) for (name, v, custom), each in macs.items()]
    return tuple(sorted(found, key=lambda kind: (-kind.macs, -kind.count, kind.name, kind.version)))


def _inspected(graph: int, tensor: FlatTensor) -> InspectedTensor:
    size_bytes = zeros = distinct = None
    if tensor.constant:
        size_bytes = tensor.stored.size
        if tensor.holds_numbers:
            zeros, distinct = _zeros_and_distinct(tensor)
    return InspectedTensor(
        graph=graph,
        name=tensor.name,
        shape=tensor.shape,
        dtype=tensor.dtype,
        constant=tensor.constant,
        size_bytes=size_bytes,
        zeros=zeros,
        distinct=distinct,
        quantization=_quantization(tensor),
        sparse=tensor.sparse,
    )


def _zeros_and_distinct(tensor: FlatTensor) -> tuple[float, int]:
    """Return the share of zeros, those that a sparse tensor does not store among them, and how many values differ."""
    values = tensor.values()
    zero = int(tensor.zero_points[0]) if tensor.zero_points.size else 0
    others = int((values != zero).sum())
    whole = math.prod(tensor.shape) if tensor.sparse else values.size
    return 1 - others / max(whole, 1), len(np.unique(values))


def _quantization(tensor: FlatTensor) -> Quantization | None:
    if not tensor.scales.size and not tensor.block_size:
        return None
    return Quantization(
        tuple(float(scale) for scale in tensor.scales),
        tuple(int(zero_point) for zero_point in tensor.zero_points),
        tensor.quantized_dimension,
        tensor.block_size,
    )
