"""From a model to a flatbuffer: conversion at a static batch of 1, and what the flatbuffer says of itself.

Runs in a child process: everything here may load TensorFlow.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import ModelError, StepError
from pipeline.model_formats.model_files import first_line, is_quantization_aware
from pipeline.results.record import TensorInfo
from pipeline.training.training_data import TrainingData

Configure = Callable[[Any], None]
PARITY_SAMPLES = 32
PARITY_FLOOR_DB = 10.0
"""Below this the noise is a third of the signal: such a flatbuffer loads and lies. Good int8 has about 30 dB."""


def model_tensors(model: Any) -> tuple[list[TensorInfo], list[TensorInfo]]:
    """Return the inputs and outputs of a loaded model; unknown dimensions are 0 in their shapes."""
    if hasattr(model, "inputs") and hasattr(model, "outputs") and model.inputs:
        inputs = [_tensor(tensor.name, tensor) for tensor in model.inputs]
        return inputs, [_tensor(tensor.name, tensor) for tensor in model.outputs]
    signature = _signature(model)
    _, keywords = signature.structured_input_signature
    inputs = [_tensor(name, spec) for name, spec in keywords.items()]
    return inputs, [_tensor(name, spec) for name, spec in signature.structured_outputs.items()]


@dataclass(frozen=True)
class Convertible:
    """A loaded model that can be made a flatbuffer of, at a static batch of 1.

    Args:
        model: a Keras model or a loaded SavedModel with one input.
        data: gives the sizes of dimensions that the model leaves open.
    """

    model: Any
    data: TrainingData

    def function(self, batch: int | None = 1) -> Any:
        """Return the model as a concrete function of ``batch`` samples [batch, …], None for any number."""
        import tensorflow as tf

        model = self.model
        call = _signature_call(model) if not hasattr(model, "inputs") else lambda inputs: model(inputs, training=False)
        return tf.function(call).get_concrete_function(_static_spec(model, self.data, batch))

    def converter(self) -> Any:
        """Return a new ``tf.lite.TFLiteConverter`` that nothing is set up on.

        But for a model that was trained under quantization: without an optimization its FAKE_QUANT operators stay.
        """
        import tensorflow as tf

        holder = _variables_holder(self.model)
        converter = tf.lite.TFLiteConverter.from_concrete_functions([self.function()], holder)
        if self.has_learned_ranges:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        return converter

    @property
    def has_learned_ranges(self) -> bool:
        """Whether the model was trained under quantization, so that it brings its own ranges."""
        return is_quantization_aware(self.model)

    def flatbuffer(self, configure: Configure = lambda converter: None) -> bytes:
        """Return the flatbuffer, float32 unless ``configure`` sets up the converter otherwise.

        Raises:
            StepError: if TensorFlow cannot convert it; the message has TensorFlow's reason.
        """
        converter = self.converter()
        configure(converter)
        try:
            content: bytes = converter.convert()
        except Exception as error:  # the converter raises whatever its stages raise
            raise StepError(f"TensorFlow cannot convert this model: {_reason(error)}") from error
        return content

    def outputs(self, inputs: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Return the model's own outputs [samples, …] for ``inputs`` [samples, …], one sample at a time."""
        import tensorflow as tf

        function = self.function()
        dtype = function.structured_input_signature[0][0].dtype
        rows = [_first_output(function(tf.constant(sample[np.newaxis], dtype))) for sample in inputs]
        return np.concatenate(rows)

    def training_outputs(self, batch_size: int) -> npt.NDArray[np.float32]:
        """Return the model's own outputs [count, …] for all training samples, in batches if it leaves these open."""
        fixed = model_tensors(self.model)[0][0].shape[0]
        function, step = self.function(fixed or None), fixed or batch_size
        starts = range(0, self.data.count, step)
        return np.concatenate(
            [_first_output(function(self.data.inputs(slice(start, start + step)))) for start in starts],
            dtype=np.float32,
        )


def flatbuffer_tensors(content: bytes) -> tuple[list[TensorInfo], list[TensorInfo]]:
    """Return the inputs and outputs of a flatbuffer.

    Raises:
        ModelError: if the content is not a flatbuffer that TensorFlow Lite can read.
    """
    interpreter = _interpreter(content)
    inputs = [_detail(detail) for detail in interpreter.get_input_details()]
    return inputs, [_detail(detail) for detail in interpreter.get_output_details()]


def gzip_size(content: bytes) -> int:
    """Return the size in bytes after gzip at level 9: what pruning and weight sharing show in."""
    return len(gzip.compress(content, 9, mtime=0))


def sha256(content: bytes) -> str:
    """Return the SHA-256 of a flatbuffer."""
    return hashlib.sha256(content).hexdigest()


def flatbuffer_outputs(content: bytes, inputs: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return the first output [samples, …] of a flatbuffer as real numbers, computed here one sample at a time.

    Raises:
        StepError: if LiteRT has no kernel for an operator as it stands in the flatbuffer.
    """
    interpreter, rows = _interpreter(content), []
    source, target = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    try:
        interpreter.allocate_tensors()
        for sample in inputs:
            interpreter.set_tensor(source["index"], _quantized(sample[np.newaxis], source))
            interpreter.invoke()
            rows.append(_dequantized(interpreter.get_tensor(target["index"]), target))
    except RuntimeError as error:
        raise StepError(f"LiteRT cannot run this flatbuffer: {first_line(error)}") from error
    return np.concatenate(rows)


def snr_db(expected: npt.NDArray[np.float64], found: npt.NDArray[np.float64]) -> float | None:
    """Return the signal-to-noise ratio in dB, 10 log10(Σ expected² / Σ difference²); None without a difference."""
    noise = expected - found
    if not noise.any():
        return None
    return float(10 * np.log10(max(np.square(expected).sum(), 1e-30) / np.square(noise).sum()))


def check_parity(source: Convertible, content: bytes) -> None:
    """Compare a flatbuffer's outputs with those of the model that it was converted from, over 32 training samples.

    Raises:
        ModelError: if the model itself gives outputs that are not finite.
        StepError: if the flatbuffer does, or has less than 10 dB.
    """
    inputs = source.data.inputs(source.data.fixed_indices(PARITY_SAMPLES))
    expected, found = source.outputs(inputs), flatbuffer_outputs(content, inputs)
    check_finite(expected)
    if not np.isfinite(found).all():
        raise StepError("the flatbuffer gives outputs that are not finite where the model's are")
    ratio_db = snr_db(expected, found)
    if ratio_db is not None and ratio_db < PARITY_FLOOR_DB:
        raise StepError(
            f"the flatbuffer's outputs are not the model's: signal-to-noise ratio {ratio_db:.1f} dB on this machine; "
            f"expected {PARITY_FLOOR_DB:g} dB at least"
        )


def check_finite(outputs: npt.NDArray[np.float64]) -> None:
    """Raise ModelError when a model's outputs are not finite."""
    if not np.isfinite(outputs).all():
        raise ModelError("the model gives outputs that are not finite; look at data.scale, and for NaN in its weights")


def _first_output(outputs: Any) -> npt.NDArray[np.float64]:
    if isinstance(outputs, dict):
        outputs = next(iter(outputs.values()))
    elif isinstance(outputs, list | tuple):
        outputs = outputs[0]
    return np.asarray(outputs, np.float64)


def _quantized(values: npt.NDArray[Any], detail: dict[str, Any]) -> npt.NDArray[Any]:
    scale, zero_point = detail["quantization"]
    if not scale or values.dtype == detail["dtype"]:
        return values.astype(detail["dtype"])
    limits = np.iinfo(detail["dtype"])
    rounded: npt.NDArray[Any] = np.clip(np.round(values / scale + zero_point), limits.min, limits.max)
    return rounded.astype(detail["dtype"])


def _dequantized(values: npt.NDArray[Any], detail: dict[str, Any]) -> npt.NDArray[np.float64]:
    scale, zero_point = detail["quantization"]
    return (values.astype(np.float64) - zero_point) * scale if scale else values.astype(np.float64)


def _interpreter(content: bytes) -> Any:
    # LiteRT's, which has kernels that TensorFlow's own lacks, such as the one from int8 to int16.
    from ai_edge_litert.interpreter import Interpreter

    try:
        return Interpreter(model_content=content, num_threads=1)
    except (ValueError, RuntimeError) as error:
        raise ModelError(f"not a flatbuffer that TensorFlow Lite can read: {first_line(error)}") from error


def _signature(model: Any) -> Any:
    signatures = getattr(model, "signatures", {})
    if "serving_default" not in signatures:
        known = ", ".join(signatures) or "none"
        raise ModelError(f'the SavedModel has no signature "serving_default"; it has {known}')
    return signatures["serving_default"]


def _signature_call(model: Any) -> Callable[[Any], Any]:
    signature = _signature(model)
    _, keywords = signature.structured_input_signature
    (name,) = keywords
    return lambda inputs: signature(**{name: inputs})


def _static_spec(model: Any, data: TrainingData, batch: int | None) -> Any:
    import tensorflow as tf

    inputs, _ = model_tensors(model)
    sample = data.inputs([0]).shape[1:]
    shape = [size or sample[i] for i, size in enumerate(inputs[0].shape[1:])]
    return tf.TensorSpec([batch, *shape], inputs[0].dtype)


def _tensor(name: str, tensor: Any) -> TensorInfo:
    if getattr(tensor.shape, "rank", 0) is None:
        raise ModelError(f"tensor {name} has no known number of dimensions; save the model with an input signature")
    dtype = tensor.dtype if isinstance(tensor.dtype, str) else str(tensor.dtype.name)
    try:
        return TensorInfo(name, tuple(size or 0 for size in tensor.shape), np.dtype(dtype).name)
    except TypeError:
        raise ModelError(f"tensor {name} has dtype {dtype}; expected numbers") from None


def _detail(detail: dict[str, Any]) -> TensorInfo:
    scale, zero_point = detail["quantization"]
    return TensorInfo(
        name=detail["name"],
        shape=tuple(int(size) for size in detail["shape"]),
        dtype=np.dtype(detail["dtype"]).name,
        scale=float(scale) or None,
        zero_point=int(zero_point) if scale else None,
    )


def _variables_holder(model: Any) -> Any:
    """Return an object through which TensorFlow finds the variables that it is to freeze.

    It does not find those of a Keras 3 model inside the model itself, and then writes a flatbuffer that reads
    variables nobody has set: it loads, and gives NaN.
    """
    import keras
    import tensorflow as tf

    if not isinstance(model, keras.Model):
        return model
    holder = tf.Module()
    holder.variables_of_model = [variable.value for variable in model.variables]
    return holder


def _reason(error: BaseException) -> str:
    """Return the line of a converter's long message that names the cause."""
    lines = [line.strip() for line in str(error).splitlines() if "error:" in line]
    return lines[0][:300] if lines else first_line(error)
