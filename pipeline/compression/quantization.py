"""Post-training quantization by TensorFlow Lite's converter.

Source: B. Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference", 2018; the modes are those of TensorFlow's guide to post-training quantization.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field

from pipeline.compression import ConvertSettings, Report
from pipeline.errors import StepError
from pipeline.export import Convertible
from pipeline.training_data import TrainingData


class Settings(ConvertSettings):
    """``float16`` stores weights in half precision; ``dynamic_range`` stores them in int8 and quantizes activations
    as they come; ``int8`` computes in integers throughout, calibrated on training samples.

    ``io`` is the type of inputs and outputs of an int8 model. An input of integers, such as
    tokens, stays as it is. With ``allow_float`` an operator without an int8 kernel
    stays in float; otherwise it is an error.
    """

    mode: Literal["float16", "dynamic_range", "int8"]
    calibration_samples: int = Field(200, ge=1, le=100_000)
    io: Literal["int8", "float32"] = "int8"
    allow_float: bool = False


def convert(source: Convertible, settings: Settings, data: TrainingData, report: Report) -> bytes:
    """Return the flatbuffer of ``source`` in one mode of quantization.

    Raises:
        StepError: if a model that was trained under quantization is to become anything but int8.
    """
    if source.has_learned_ranges:
        _heed_learned_ranges(settings, report)
    return source.flatbuffer(lambda converter: _configure(converter, settings, data))


def _heed_learned_ranges(settings: Settings, report: Report) -> None:
    if settings.mode != "int8":
        raise StepError(f"quantization mode is {settings.mode}; a model trained under quantization becomes int8 only")
    report.note("ranges are those learned in training; what was left in float then is calibrated on samples now")


def _configure(converter: Any, settings: Settings, data: TrainingData) -> None:
    import tensorflow as tf

    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if settings.mode == "float16":
        converter.target_spec.supported_types = [tf.float16]
    elif settings.mode == "dynamic_range":
        _keep_old_kernels(converter, data)
    else:
        _calibrate(converter, settings, data)


def _keep_old_kernels(converter: Any, data: TrainingData) -> None:
    if data.runtime == "tflite_runtime":
        # Per-channel scales make FULLY_CONNECTED version 12, which tflite-runtime 2.14 refuses.
        converter._experimental_disable_per_channel_quantization_for_dense_layers = True


def _calibrate(converter: Any, settings: Settings, data: TrainingData) -> None:
    import tensorflow as tf

    def representative_dataset() -> Iterator[list[Any]]:
        for index in data.fixed_indices(settings.calibration_samples):
            yield [data.inputs([index])]

    converter.representative_dataset = representative_dataset
    integer = tf.lite.OpsSet.TFLITE_BUILTINS_INT8
    converter.target_spec.supported_ops = (
        [integer, tf.lite.OpsSet.TFLITE_BUILTINS] if settings.allow_float else [integer]
    )
    if settings.io == "int8":
        if data.dtype.startswith("float"):
            converter.inference_input_type = tf.int8
        converter.inference_output_type = tf.int8
