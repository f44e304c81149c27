"""``edgepress init``: a commented experiment for a model and data of the user's own."""

from __future__ import annotations

import os
import re
from pathlib import Path

from device_agent import metrics
from pipeline.cache import write_text
from pipeline.errors import UsageError
from pipeline.model_formats.model_files import Format, detect_format
from pipeline.samples import Array, read_npz

_HEAD = """\
# An edgepress experiment. Run it with: edgepress run {file}
# Every key is explained in docs/experiments.md; "edgepress schema" prints its JSON Schema.
schema: 1
name: {name}

# {model_words}
model: {model}

# {data_words}
data:
  file: {data}
  # What the model is given is x * scale + offset, as float32.
  scale: {scale}
  offset: 0.0

# What is scored on the device: the share of samples whose label is the first (top1) or among the first five (top5).
metric: {metric}

# Where it is measured: "local" is an agent on this machine; "edgepress device add" makes others known.
device: local
runtime: litert  # or tflite_runtime
threads: 1

variants:
"""

_KERAS_VARIANTS = """\
  float32: []  # the plain export, and the baseline
  float16:
    - quantization: {mode: float16}  # weights in half precision
  dynamic_range:
    - quantization: {mode: dynamic_range}  # weights in int8, activations quantized as they come
  int8:
    # Integers throughout, calibrated on fixed samples. An operator without an int8 kernel is an error unless
    # allow_float is true; io: float32 keeps the inputs and outputs in float.
    - quantization: {mode: int8, calibration_samples: 200, io: int8, allow_float: false}
"""

_PRUNED = """\
{mark}  pruned_int8:
{mark}    # Needs x_train and y_train to train with, and a Keras model.
{mark}    - magnitude_pruning: {{schedule: polynomial, final_sparsity: 0.8, epochs: 3}}
{mark}    - quantization: {{mode: int8}}
"""

_TFLITE_VARIANTS = """\
  as_is: []  # a finished flatbuffer is measured as it is
"""

_TAIL = """
measure:
  processes: 5  # fresh processes per variant; their order is random
  warmup_s: 0.5
  timing_s: 1.0

# The best variant that meets every limit given here is named; exit code 3 when none does.
budget:
  accuracy_drop_pp: 1.0
  # size_kib: 500
  # p50_ms: 10
  # peak_memory_mib: 100
"""


def write_experiment(model: Path, data: Path, metric: str, output: Path, force: bool) -> None:
    """Write an experiment to ``output``, after a look at the model's format and the data's arrays.

    Raises:
        UsageError: if ``output`` is there already, or the model, the data or the metric cannot be used.
    """
    if output.exists() and not force:
        raise UsageError(f"{output} is there already; choose another name or add --force")
    if metric not in metrics.known():
        raise UsageError(f'unknown metric "{metric}"; known: {", ".join(metrics.known())}')
    kind = detect_format(model)
    arrays = read_npz(data)
    write_text(output, _text(model, kind, data, arrays, metric, output))


def _text(model: Path, kind: Format, data: Path, arrays: dict[str, Array], metric: str, output: Path) -> str:
    x_test = arrays["x_test"]
    head = _HEAD.format(
        file=output.name,
        name=re.sub(r"[^A-Za-z0-9_.-]", "_", f"x{output.stem}" if not output.stem[:1].isalnum() else output.stem)[:64],
        model=_quoted(_relative(model, output)),
        model_words={
            "keras3": "A Keras 3 model.",
            "keras2": "A Keras 2 model.",
            "saved_model": "A SavedModel.",
            "onnx": "An ONNX model, converted once; the samples are given as it takes them: [N, C, H, W] for images.",
            "tflite": "A finished flatbuffer.",
        }[kind],
        data=_quoted(_relative(data, output)),
        data_words=_data_words(arrays),
        # Images as bytes are almost always scaled to 0..1; whoever knows better changes the line.
        scale=f"{1 / 255!r}  # uint8 images to 0..1: check that your model was trained so"
        if x_test.dtype == "uint8"
        else "1.0",
        metric=metric,
    )
    return head + _variants(kind, "y_train" in arrays) + _TAIL


def _variants(kind: Format, has_training_data: bool) -> str:
    if kind == "tflite":
        return _TFLITE_VARIANTS
    possible = has_training_data and kind != "saved_model"
    return _KERAS_VARIANTS + _PRUNED.format(mark="" if possible else "  # ").replace("#   ", "# ")


def _data_words(arrays: dict[str, Array]) -> str:
    x_test = arrays["x_test"]
    words = f"{len(x_test)} test samples of shape {x_test.shape[1:]}, {x_test.dtype}"
    if "x_train" in arrays:
        return f"{words}; {len(arrays['x_train'])} for training and calibration."
    return f"{words}. Without x_train, some of them are set aside for calibration and not scored."


def _relative(path: Path, output: Path) -> str:
    return os.path.relpath(path.resolve(), output.resolve().parent)


def _quoted(path: str) -> str:
    return "'" + path.replace("'", "''") + "'"
