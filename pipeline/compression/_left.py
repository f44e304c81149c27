"""What a quantizer left as it was, found by reading the flatbuffer that it wrote."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.compression import NoReport, Report
from pipeline.compression._ai_edge import ACTIVATION_BITS, WEIGHTS, Plan, Precision
from pipeline.compression._operators import NamedOperator
from pipeline.errors import StepError
from pipeline.results.record import LeftLayer

_FEWEST_WEIGHTS = 1024
"""TensorFlow's dynamic-range quantization leaves smaller tensors as they are."""
_COMPUTED_IN = {"int8": "int8", "int16x8": "int16", "float32": "float32"}
_REAL = frozenset(_COMPUTED_IN.values())


class LeftReport(NoReport):
    """A ``Report`` that keeps what is left, and nothing else."""

    def __init__(self) -> None:
        self.left: list[LeftLayer] = []

    def leave(self, layer: str, reason: str, chosen: bool = False) -> None:
        """See ``Report``."""
        self.left.append(LeftLayer(layer, reason, chosen))


def tell_left(
    operators: Sequence[NamedOperator], plan: Plan, quantizer: str, allow_float: bool, report: Report
) -> None:
    """Report each operator whose weights, or whose arithmetic, are not what the plan asks for.

    Raises:
        StepError: without ``allow_float``, if one computes in float where integers are asked for throughout.
    """
    in_float = []
    for place, operator in enumerate(operators):
        asked = plan.of(place)
        if reason := _not_as_asked(operator, asked, quantizer):
            report.leave(operator.layer, f"{operator.name}: {reason}")
        if asked == plan.base and asked.mode in ACTIVATION_BITS and operator.dtype == "float32":
            in_float.append(f"{operator.layer}: {operator.name}")
    if in_float and not allow_float:
        raise StepError(
            f"{quantizer} has no {plan.base.mode} for {'; '.join(in_float)}; "
            "set allow_float: true to leave them in float32"
        )


def check_changed(
    operators: Sequence[NamedOperator], plan: Plan, places: Sequence[int], quantizer: str, what: str
) -> None:
    """Raise StepError when no operator at ``places`` became what the plan asks for."""
    touched = [place for place in places if _can_change(operators[place], plan.of(place))]
    if any(not _not_as_asked(operators[place], plan.of(place), quantizer) for place in touched):
        return
    found = ", ".join(f"{operators[place].layer} ({operators[place].name})" for place in touched or places)
    why = f"{quantizer} left all as they were" if touched else "they have no weights"
    raise StepError(f"{what} changed nothing: {why}: {found}")


def _can_change(operator: NamedOperator, asked: Precision) -> bool:
    integers = asked.mode in ACTIVATION_BITS or asked.mode == "float32"
    return operator.weights is not None or (integers and operator.dtype in _REAL)


def _not_as_asked(operator: NamedOperator, asked: Precision, quantizer: str) -> str:
    """Return why an operator is not what was asked for, empty when it is."""
    found = operator.weights_dtype
    if operator.weights and found != WEIGHTS[asked.mode]:
        if not asked.fits(operator):
            depth = operator.weights.shape[-1]
            return f"weights stay {found}: {depth} in a row do not divide into blocks of {asked.block_size}"
        small = asked.mode == "dynamic_range" and quantizer == "TensorFlow" and _count(operator) < _FEWEST_WEIGHTS
        if small:
            return f"weights stay {found}: {_count(operator)}, and TensorFlow leaves fewer than {_FEWEST_WEIGHTS}"
        blocks = f" in blocks of {asked.block_size}" if asked.block_size else ""
        return f"weights stay {found}: {quantizer} has no {asked.mode}{blocks} for it"
    if asked.mode in _COMPUTED_IN and operator.dtype in _REAL and operator.dtype != _COMPUTED_IN[asked.mode]:
        return f"computed in {operator.dtype}: {quantizer} has no {asked.mode} for it"
    return ""


def _count(operator: NamedOperator) -> int:
    assert operator.weights is not None
    return operator.weights.values().size
