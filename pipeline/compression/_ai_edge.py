"""Quantization of a float32 flatbuffer by ai-edge-quantizer, each operator in a mode of its own.

Three things differ from its own recipes, each found by running them with version 0.10: ranges are true minima and
maxima, as TensorFlow's are, since its moving average cuts outliers off (31.5 dB instead of 37.0); an operator whose
weights do not divide into blocks is left out, or the whole model would be refused; and int8 in blocks and int2 are not
offered, since the first quantizes nothing and the second crashes the runtime. It writes every operator as version 1.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from pipeline.compression._operators import NamedOperator
from pipeline.errors import StepError

Ranges = dict[str, Any]
WEIGHTS = {
    "float32": "float32",
    "float16": "float16",
    "dynamic_range": "int8",
    "int8_weight_only": "int8",
    "int8": "int8",
    "int16x8": "int8",
    "int4": "int4",
}
"""The type that each mode stores weights in."""
ACTIVATION_BITS = {"int8": 8, "int16x8": 16}


@dataclass(frozen=True)
class Precision:
    """What an operator computes in: a mode, and for int4 the weights that share a scale, 0 for a whole channel.

    ``activations`` is the mode whose integers int4 weights are multiplied with; empty when that is chosen as it runs.
    """

    mode: str
    block_size: int = 0
    activations: str = ""

    @property
    def calibrated(self) -> bool:
        """Whether it needs the ranges of activations."""
        return self.mode in ACTIVATION_BITS or bool(self.activations)

    def fits(self, operator: NamedOperator) -> bool:
        """Whether the operator's weights divide into blocks, where it can have blocks at all."""
        if not self.block_size or operator.weights is None or operator.name != "FULLY_CONNECTED":
            return True
        return operator.weights.shape[-1] % self.block_size == 0


@dataclass(frozen=True)
class Plan:
    """The precision of all operators, and of some by their place among ``named_operators``.

    ``integer_io``: inputs and outputs are integers too, where ``base`` computes in integers.
    """

    base: Precision
    others: Mapping[int, Precision]
    integer_io: bool = False

    def of(self, place: int) -> Precision:
        """Return the precision of the operator at ``place``."""
        return self.others.get(place, self.base)

    def calibrated(self) -> bool:
        """Whether any operator needs the ranges of activations."""
        return any(precision.calibrated for precision in (self.base, *self.others.values()))


def find_ranges(content: bytes, samples: Iterable[npt.NDArray[Any]]) -> Ranges:
    """Return the least and greatest value of every tensor of a float32 flatbuffer over ``samples``, each [1, …]."""
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer import calibrator
    from ai_edge_quantizer.utils import qsv_utils

    ((key, ends),) = Interpreter(model_content=content).get_signature_list().items()
    (name,) = ends["inputs"]
    manager = _manager(Plan(Precision("int8"), {}, integer_io=True), ())
    found = calibrator.Calibrator(content, num_threads=1, qsv_update_func=qsv_utils.min_max_update)
    try:
        found.calibrate({key: [{name: sample} for sample in samples]}, manager)
    except (ValueError, RuntimeError) as error:
        raise StepError(f"ai-edge-quantizer cannot calibrate this model: {error}") from error
    ranges: Ranges = found.get_model_qsvs()
    return ranges


def quantized(content: bytes, operators: tuple[NamedOperator, ...], plan: Plan, ranges: Ranges | None) -> bytes:
    """Return a float32 flatbuffer quantized by a plan.

    Args:
        content: the float32 flatbuffer.
        operators: its ``named_operators``.
        plan: what each is to compute in; one that ai-edge-quantizer cannot treat so stays as ``base`` has it.
        ranges: those of ``find_ranges``, where the plan is calibrated.
    """
    from ai_edge_quantizer import quantizer

    recipe = _manager(plan, operators).get_quantization_recipe()
    try:
        result = quantizer.Quantizer(bytearray(content), recipe).quantize(ranges, enable_progress_report=False)
    except (ValueError, RuntimeError) as error:
        raise StepError(f"ai-edge-quantizer cannot quantize this model: {error}") from error
    return bytes(result.quantized_model)


def _manager(plan: Plan, operators: tuple[NamedOperator, ...]) -> Any:
    """Return ai-edge-quantizer's rules; of those that match an operator and are possible for it, the last one holds."""
    from ai_edge_quantizer import qtyping, recipe_manager

    manager = recipe_manager.RecipeManager()
    everything = qtyping.TFLOperationName.ALL_SUPPORTED
    if plan.base.mode != "float32":
        _add(manager, ".*", everything, plan.base)
    for place, operator in enumerate(operators):
        precision = plan.of(place)
        if not precision.fits(operator):
            precision = Precision("float32")
        if precision != plan.base:
            _add(manager, _exactly(operator), everything, precision)
    # A pattern of their own, or these rules would count as older than those of the operators above.
    ends = plan.base if plan.integer_io else Precision("float32")
    _add(manager, "(?:.*)", qtyping.TFLOperationName.INPUT, ends)
    _add(manager, "(?:.*)", qtyping.TFLOperationName.OUTPUT, ends)
    return manager


def _exactly(operator: NamedOperator) -> str:
    return f"^{re.escape(';'.join(operator.outputs))};$"


def _add(manager: Any, pattern: str, operation: Any, precision: Precision) -> None:
    from ai_edge_quantizer import algorithm_manager, qtyping

    names = algorithm_manager.AlgorithmName
    bits = 4 if precision.mode == "int4" else 8
    activations = precision.activations or precision.mode
    if precision.mode == "float32":
        manager.add_quantization_config(pattern, operation, algorithm_key=names.NO_QUANTIZE)
    elif precision.mode == "float16":
        manager.add_weight_only_config(pattern, operation, 16, algorithm_key=names.FLOAT_CASTING)
    elif precision.mode == "int8_weight_only":
        manager.add_weight_only_config(pattern, operation, 8)
    elif activations in ACTIVATION_BITS:
        manager.add_static_config(pattern, operation, ACTIVATION_BITS[activations], bits)
    else:
        block = f"BLOCKWISE_{precision.block_size}" if precision.block_size else "CHANNELWISE"
        manager.add_dynamic_config(pattern, operation, bits, qtyping.QuantGranularity(block))
