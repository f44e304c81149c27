"""Post-training quantization by TensorFlow Lite's converter, and by ai-edge-quantizer what that one does not have.

Source: B. Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference", 2018; the modes are those of TensorFlow's guide to post-training quantization. Weights of four bits, in
blocks too, and several modes in one model: ai-edge-quantizer, https://github.com/google-ai-edge/ai-edge-quantizer.
"""

from __future__ import annotations

import fnmatch
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from pipeline.compression import Report, _calibration, _refusals
from pipeline.compression._ai_edge import Plan, Precision, find_ranges, quantized
from pipeline.compression._calibration import CalibrationSettings
from pipeline.compression._left import LeftReport, check_changed, tell_left
from pipeline.compression._operators import NamedOperator, layer_names, named_operators
from pipeline.errors import StepError
from pipeline.export import Convertible
from pipeline.results.record import LeftLayer
from pipeline.training.training_data import TrainingData
from pipeline.yaml_file import Section

Mode = Literal["float32", "float16", "dynamic_range", "int8_weight_only", "int8", "int16x8", "int4"]
BlockSize = Literal[32, 64, 128, 256]
_INTEGERS = {"int8": "int8", "int16x8": "int16"}
_BY_AI_EDGE = ("int8_weight_only", "int4")


class Override(Section):
    """Another mode for some operators, by patterns as a shell has them.

    ``layers`` is met by the name of a layer or of an operator's output tensor, ``operators`` by the operator's name in
    TensorFlow Lite, such as ``FULLY_CONNECTED``; both must be met. Where several overrides are met, the last one holds.
    """

    layers: str = "*"
    operators: str = "*"
    mode: Mode
    block_size: BlockSize | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_block_size(self.mode, self.block_size)
        return self

    def meets(self, operator: NamedOperator) -> bool:
        """Whether an operator is one of those."""
        names = (operator.layer, *operator.outputs)
        return fnmatch.fnmatchcase(operator.name, self.operators) and any(
            fnmatch.fnmatchcase(name, self.layers) for name in names
        )


class Settings(CalibrationSettings):
    """``mode`` is what weights are stored in and what is computed in.

    ``float16``: weights in half precision. ``dynamic_range``: weights in int8, activations quantized as they come.
    ``int8_weight_only``: weights in int8, computed in float32. ``int8``: integers throughout, calibrated on training
    samples. ``int16x8``: the same with activations in int16. ``int4``: weights in int4, activations quantized as they
    come, one scale for each channel, or for ``block_size`` weights in a row. ``float32``: only what ``overrides`` name.

    ``io`` is the type of inputs and outputs in modes int8 and int16x8, the mode's own integers by default. An input of
    integers, such as tokens, stays as it is. With ``allow_float`` an operator that such a mode has no integer kernel
    for stays in float; otherwise it is an error. A few, such as NEG, TensorFlow leaves in float in any case; all are
    named.

    ``overrides`` mix modes: int8 with int4 in Dense layers is ``mode: int8`` with ``overrides: [{operators:
    FULLY_CONNECTED, mode: int4}]``. There int4 weights without a block size meet the activations of ``mode``.
    """

    mode: Mode
    io: Literal["int8", "int16", "float32"] | None = None
    allow_float: bool = False
    block_size: BlockSize | None = None
    overrides: list[Override] = Field(default=[])

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_block_size(self.mode, self.block_size)
        if self.mode == "float32" and not self.overrides:
            raise ValueError('mode is "float32", which changes nothing without overrides')
        allowed = (_INTEGERS[self.mode], "float32") if self.mode in _INTEGERS else ()
        if self.io is not None and self.io not in allowed:
            expected = " or ".join(allowed) or "no io: inputs and outputs stay as they are"
            raise ValueError(f'io is "{self.io}", which mode {self.mode} does not have; expected {expected}')
        return self

    @property
    def integer_io(self) -> bool:
        """Whether inputs and outputs are integers."""
        return self.mode in _INTEGERS and self.io != "float32"

    @property
    def calibrated(self) -> bool:
        """Whether training samples are needed."""
        return any(mode in _INTEGERS for mode in (self.mode, *(override.mode for override in self.overrides)))


def _check_block_size(mode: str, block_size: int | None) -> None:
    if block_size is not None and mode != "int4":
        raise ValueError(f"block_size is {block_size}, which mode {mode} does not have; it goes with int4")


def _check_runtime(settings: Settings, runtime: str) -> None:
    """Raise StepError for a mode that is known not to run in a runtime."""
    if settings.overrides:
        _refusals.check_runtime("overrides", runtime, "one mode for the whole model")
    _refusals.check_runtime(settings.mode, runtime, '"mode: int8_weight_only" or "mode: int8"')


def calibration_indices(settings: Settings, data: TrainingData) -> list[int]:
    """Return the training samples that ranges are calibrated with; none for a mode without."""
    return _calibration.fixed_indices(settings, data) if settings.calibrated else []


def untreated(source: Convertible, settings: Settings, data: TrainingData) -> list[LeftLayer]:
    """Return the operators that the mode will leave as they are, by a trial; raises as ``convert``."""
    report, tried = LeftReport(), _calibration.for_trial(settings)
    _converted(source, tried, calibration_indices(tried, data), report)
    return report.left


def convert(source: Convertible, settings: Settings, data: TrainingData, report: Report) -> bytes:
    """Return the flatbuffer of ``source`` in one mode of quantization, or in several.

    Raises:
        StepError: if the mode does not fit the model or the runtime, cannot be converted to, or changed nothing.
    """
    indices = calibration_indices(settings, data)
    content = _converted(source, settings, indices, report)
    if indices:
        report(0.9, "measuring")
        _calibration.note_doubts(indices, source, content, report)
    return content


def _converted(source: Convertible, settings: Settings, indices: list[int], report: Report) -> bytes:
    _check_runtime(settings, source.data.runtime)
    for mode in (settings.mode, *(override.mode for override in settings.overrides)):
        _refusals.check_model(source, mode)
    if source.has_learned_ranges:
        report.note("ranges are those learned in training; what was left in float then is calibrated on samples now")
    if settings.overrides or settings.mode in _BY_AI_EDGE:
        return _by_ai_edge(source, settings, indices, report)
    return _by_tensorflow(source, settings, indices, report)


def _by_tensorflow(source: Convertible, settings: Settings, indices: list[int], report: Report) -> bytes:
    report(0.1, "converting")
    try:
        content = source.flatbuffer(lambda converter: _configure(converter, settings, source.data, indices))
    except StepError as error:
        if settings.allow_float or "not yet supported for op" not in str(error):
            raise
        raise StepError(f"{error} Set allow_float: true to leave such operators in float32.") from error
    if settings.mode == "int16x8":
        _refusals.check_int16_kernels(content, source.data.runtime)
    found = named_operators(content, layer_names(source.model))
    plan = Plan(Precision(settings.mode), {})
    # It refuses by itself what it knows to have no integer kernel; the few that it leaves all the same are named.
    tell_left(found, plan, "TensorFlow", True, report)
    check_changed(found, plan, range(len(found)), "TensorFlow", f"mode {settings.mode}")
    return content


def _configure(converter: Any, settings: Settings, data: TrainingData, indices: list[int]) -> None:
    import tensorflow as tf

    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if settings.mode == "float16":
        converter.target_spec.supported_types = [tf.float16]
    elif settings.mode == "dynamic_range":
        _keep_old_kernels(converter, data)
    else:
        _calibrate(converter, settings, data, indices)


def _keep_old_kernels(converter: Any, data: TrainingData) -> None:
    if data.runtime == "tflite_runtime":
        # Per-channel scales make FULLY_CONNECTED version 12, which tflite-runtime 2.14 refuses.
        converter._experimental_disable_per_channel_quantization_for_dense_layers = True


def _calibrate(converter: Any, settings: Settings, data: TrainingData, indices: list[int]) -> None:
    import tensorflow as tf

    converter.representative_dataset = lambda: ([sample] for sample in _calibration.samples(indices, data))
    kernels = tf.lite.OpsSet
    wide = settings.mode == "int16x8"
    integer = (
        kernels.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8 if wide else kernels.TFLITE_BUILTINS_INT8
    )
    converter.target_spec.supported_ops = [integer, kernels.TFLITE_BUILTINS] if settings.allow_float else [integer]
    if settings.integer_io:
        dtype = tf.int16 if wide else tf.int8
        if data.dtype.startswith("float"):
            converter.inference_input_type = dtype
        converter.inference_output_type = dtype


def _by_ai_edge(source: Convertible, settings: Settings, indices: list[int], report: Report) -> bytes:
    report(0.1, "converting")
    content = source.flatbuffer()
    layers = layer_names(source.model)
    operators = named_operators(content, layers)
    plan = _plan(settings, operators)
    report(0.3, "calibrating" if plan.calibrated() else "quantizing")
    ranges = find_ranges(content, _calibration.samples(indices, source.data)) if plan.calibrated() else None
    result = quantized(content, operators, plan, ranges)
    found = named_operators(result, layers)
    tell_left(found, plan, "ai-edge-quantizer", settings.allow_float, report)
    _check_each(found, plan, settings, operators)
    return result


def _check_each(
    found: tuple[NamedOperator, ...], plan: Plan, settings: Settings, operators: tuple[NamedOperator, ...]
) -> None:
    """Raise StepError when the mode, or one of the overrides, changed nothing."""
    rest = [place for place in range(len(found)) if place not in plan.others]
    if settings.mode != "float32" and any(found[place].weights for place in rest):
        check_changed(found, plan, rest, "ai-edge-quantizer", f"mode {settings.mode}")
    for override in settings.overrides:
        places = [place for place, operator in enumerate(operators) if override.meets(operator)]
        what = f'override "{override.layers}" "{override.operators}" to {override.mode}'
        check_changed(found, plan, places, "ai-edge-quantizer", what)


def _plan(settings: Settings, operators: tuple[NamedOperator, ...]) -> Plan:
    others: dict[int, Precision] = {}
    for override in settings.overrides:
        chosen = [place for place, operator in enumerate(operators) if override.meets(operator)]
        if not chosen:
            known = ", ".join(dict.fromkeys(f"{operator.layer} ({operator.name})" for operator in operators))
            raise StepError(
                f'overrides: no operator is met by layers "{override.layers}" and operators "{override.operators}"; '
                f"the model has {known}"
            )
        activations = settings.mode if override.mode == "int4" and not override.block_size else ""
        precision = Precision(override.mode, override.block_size or 0, activations if activations in _INTEGERS else "")
        others |= dict.fromkeys(chosen, precision)
    return Plan(Precision(settings.mode, settings.block_size or 0), others, settings.integer_io)
