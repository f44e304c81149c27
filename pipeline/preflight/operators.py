"""Whether a runtime has every operator of a flatbuffer in its version, as ``operator_versions.json`` has it.

The table was asked of the wheels, operator by operator: a runtime refuses a file at once when it does not know one of
its operators. A test asks again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pipeline.flatbuffer.graph import FlatModel, FlatOperator, Subgraph

_TABLE = Path(__file__).with_name("operator_versions.json")

_PER_TENSOR = (
    'a step "quantization: {mode: dynamic_range}" with "runtime: tflite_runtime" writes one scale a tensor, which it '
    "knows; a converter of your own needs _experimental_disable_per_channel_quantization_for_dense_layers = True"
)
_OF_TENSORFLOW = "convert the model without SELECT_TF_OPS, of operators that TensorFlow Lite has itself"


@dataclass(frozen=True)
class KnownOperators:
    """The operators of one version of a runtime: lowest and highest version by name, and the custom ones it has.

    ``blocks`` is whether it knows a scale for each block of a row; what is older than those reads past them without a
    word.
    """

    runtime: str
    builtin: Mapping[str, tuple[int, int]]
    custom: tuple[str, ...]
    blocks: bool


@cache
def known_operators() -> Mapping[str, KnownOperators]:
    """Return what is known, by runtime and version: "litert 2.3.0"."""
    table = json.loads(_TABLE.read_text(encoding="ascii"))
    return {
        runtime: KnownOperators(
            runtime,
            {name: tuple(versions) for name, versions in found["builtin"].items()},
            tuple(found["custom"]),
            found["blocks"],
        )
        for runtime, found in table.items()
    }


def refused_operators(model: FlatModel, known: KnownOperators) -> tuple[str, ...]:
    """Return a sentence for each kind of operator that the runtime refuses or would compute wrongly; empty if none."""
    found = (_refusal(operator, graph, known) for graph in model.subgraphs for operator in graph.operators)
    return tuple(dict.fromkeys(text for text in found if text))


def _refusal(operator: FlatOperator, graph: Subgraph, known: KnownOperators) -> str:
    if operator.custom:
        return "" if operator.name in known.custom else _unknown_custom(operator.name, known)
    if operator.name not in known.builtin:
        return f"{operator.name}: {known.runtime} has no such operator{_elsewhere(operator, operator.version, known)}"
    lowest, highest = known.builtin[operator.name]
    limit = f"{known.runtime} knows it {f'from version {lowest} ' if lowest > 1 else ''}up to version {highest}"
    if not lowest <= operator.version <= highest:
        return f"{operator.name} version {operator.version}: {limit}{_remedy(operator, operator.version, known)}"
    if not known.blocks and (blocks := _blocks(operator, graph)):
        return (
            f"{operator.name} version {operator.version}, with weights in blocks of {blocks}: {known.runtime} does not "
            f'know blocks, and would give wrong numbers or die; with "runtime: litert" it would run'
        )
    needed = _needed_version(operator, graph)
    if needed > highest:
        return (
            f"{operator.name} version {operator.version}, with a float32 input and int8 weights of a scale for each "
            f"channel, is version {needed}, whatever the file says: {limit}, and would give wrong numbers"
            f"{_remedy(operator, needed, known)}"
        )
    return ""


def _needed_version(operator: FlatOperator, graph: Subgraph) -> int:
    """Return the version that an operator's tensors ask for where quantizers are known to write a lower one.

    ai-edge-quantizer 0.10 writes 1 everywhere, and then no runtime refuses what it cannot compute. The rule is one of
    tensorflow/compiler/mlir/lite/tools/versioning/op_version.cc.
    """
    if operator.name != "FULLY_CONNECTED":
        return operator.version
    inputs, weights = (graph.tensors[place] for place in operator.inputs[:2])
    per_channel = inputs.dtype == "float32" and weights.dtype == "int8" and weights.scales.size > 1
    return max(operator.version, 12) if per_channel else operator.version


def _blocks(operator: FlatOperator, graph: Subgraph) -> int:
    return max((graph.tensors[place].block_size for place in operator.inputs if place >= 0), default=0)


def _unknown_custom(name: str, known: KnownOperators) -> str:
    advice = f"; {_OF_TENSORFLOW}" if name.startswith("Flex") else ""
    return f"custom operator {name}: {known.runtime} has only {', '.join(known.custom)}{advice}"


def _remedy(operator: FlatOperator, needed: int, known: KnownOperators) -> str:
    per_tensor = operator.name == "FULLY_CONNECTED" and needed == 12 and known.runtime.startswith("tflite_runtime")
    return (
        f"; {_PER_TENSOR}{_elsewhere(operator, needed, known)}" if per_tensor else _elsewhere(operator, needed, known)
    )


def _elsewhere(operator: FlatOperator, version: int, known: KnownOperators) -> str:
    """Return which other runtime has it."""
    for other in known_operators().values():
        lowest, highest = other.builtin.get(operator.name, (1, 0))
        if other is not known and lowest <= version <= highest:
            name, number = other.runtime.split()
            return f'; with "runtime: {name}" it would run: version {number} knows it up to version {highest}'
    return ""
