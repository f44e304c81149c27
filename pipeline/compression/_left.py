"""What a quantizer left as it was, found by reading the flatbuffer that it wrote."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.compression import Report
from pipeline.compression._ai_edge import ACTIVATION_BITS, WEIGHTS, Plan, Precision
from pipeline.compression._operators import NamedOperator
from pipeline.errors import StepError

_FEWEST_WEIGHTS = 1024
"""TensorFlow's dynamic-range quantization leaves smaller tensors as they are."""


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


def check_changed(operators: Sequence[NamedOperator], plan: Plan, places: Sequence[int], what: str) -> None:
    """Raise StepError when no operator at ``places`` has the weights that the plan asks for, although some have any."""
    weighted = [place for place in places if operators[place].weights]
    wrong = [place for place in weighted if operators[place].weights_dtype != WEIGHTS[plan.of(place).mode]]
    if weighted and len(wrong) == len(weighted):
        found = ", ".join(f"{operators[place].layer} ({operators[place].name})" for place in wrong)
        raise StepError(f"{what} changed nothing: no weights became {WEIGHTS[plan.of(wrong[0]).mode]}: {found}")


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
        return f"weights stay {found}: {quantizer} has no {asked.mode} for it"
    if asked.mode in ACTIVATION_BITS and operator.dtype == "float32":
        return f"computed in float32: {quantizer} has no {asked.mode} for it"
    return ""


def _count(operator: NamedOperator) -> int:
    assert operator.weights is not None
    return operator.weights.values().size
