"""What ``edgepress inspect`` prints: the recipe and the hashes of its inputs, then operators and tensors as tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pipeline.devices.agent_stream import printable
from pipeline.flatbuffer.recipe import Recipe
from pipeline.inspection import InspectedOperator, InspectedTensor, Inspection, Quantization
from pipeline.reporting import format

FIRST_INDICES = 8
_LONGEST_CELL = 2000

Row = tuple[str, ...]


def inspection_summary(found: Inspection) -> RenderableType:
    """Return everything but the tensors that are computed; those are in the JSON."""
    ends = [("input", tensor) for tensor in found.inputs] + [("output", tensor) for tensor in found.outputs]
    return Group(
        _table(("file", found.path), _file_rows(found)),
        _table(("recipe", ""), _recipe_rows(found.recipe)),
        _table(
            ("", "name", "shape", "type", "quantization"),
            [(end, t.name, _shape(t), t.dtype, _quantization(t.quantization)) for end, t in ends],
        ),
        _table(
            ("operator", "version", "count", "MACs"),
            [_operator_row(operator) for operator in found.operators],
            numeric=(1, 2, 3),
        ),
        _table(
            ("constant", "shape", "type", "bytes", "zeros", "distinct", "quantization"),
            [_constant_row(tensor) for tensor in found.constants],
            numeric=(3, 4, 5),
        ),
    )


def _file_rows(found: Inspection) -> list[Row]:
    return [
        ("sha256", found.sha256),
        ("raw", format.exact_bytes(found.size_bytes)),
        ("gzip", format.exact_bytes(found.gzip_bytes)),
        ("parameters", f"{found.parameters:,}"),
        ("MACs", f"{found.macs:,} an inference"),
    ]


def _recipe_rows(recipe: Recipe | None) -> list[Row]:
    if recipe is None:
        return [("none", "the file does not say how it was made")]
    steps = [(f"step {n}", f"{step.technique} ({_pairs(step.settings)})") for n, step in enumerate(recipe.steps, 1)]
    return [
        *(steps or [("steps", "none: the plain float32 export")]),
        ("seed", str(recipe.seed)),
        ("runtime", recipe.runtime),
        ("model's input", f"x * {recipe.scale:g} + {recipe.offset:g}"),
        *((f"sha256 of {name}", digest) for name, digest in recipe.inputs.items()),
        ("calibration", _indices(recipe.calibration_indices)),
        ("toolchain", _pairs(recipe.toolchain)),
    ]


def _pairs(named: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in named.items())


def _indices(indices: Sequence[int]) -> str:
    if not indices:
        return "none"
    first = ", ".join(map(str, indices[:FIRST_INDICES]))
    return f"{format.count(len(indices), 'training sample')}: {first}{', …' if len(indices) > FIRST_INDICES else ''}"


def _operator_row(kind: InspectedOperator) -> Row:
    return (kind.name + (" (custom)" if kind.custom else ""), str(kind.version), f"{kind.count:,}", f"{kind.macs:,}")


def _constant_row(tensor: InspectedTensor) -> Row:
    return (
        tensor.name,
        _shape(tensor),
        tensor.dtype + (", sparse" if tensor.sparse else ""),
        f"{tensor.size_bytes:,}",
        format.NONE if tensor.zeros is None else f"{tensor.zeros:.1%}",
        format.NONE if tensor.distinct is None else f"{tensor.distinct:,}",
        _quantization(tensor.quantization),
    )


def _shape(tensor: InspectedTensor) -> str:
    return "×".join(map(str, tensor.shape)) or "scalar"


def _quantization(found: Quantization | None) -> str:
    if found is None:
        return format.NONE
    if found.block_size:
        return f"a scale for every {found.block_size} values"
    if found.per_channel:
        low, high = min(found.scales), max(found.scales)
        return f"{len(found.scales)} scales on axis {found.dimension}, {low:.3g} to {high:.3g}"
    return f"scale {found.scales[0]:.3g}, zero point {found.zero_points[0] if found.zero_points else 0}"


def _table(heads: Row, rows: Iterable[Row], numeric: tuple[int, ...] = ()) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for place, head in enumerate(heads):
        table.add_column(Text(head), justify="right" if place in numeric else "left", overflow="fold")
    for row in rows:
        # Text: names in a file are no markup of ours.
        table.add_row(*(Text(printable(cell, _LONGEST_CELL)) for cell in row))
    return table
