"""What is known not to work, refused before it is tried: by runtime, and by what the model is made of.

Each line was found by running it; what is not listed here is found by running the file in the target's runtime.
"""

from __future__ import annotations

from typing import Any

from pipeline.errors import StepError
from pipeline.export import Convertible
from pipeline.flatbuffer.graph import read_model

CALIBRATED = ("int8", "int16x8")

_NOT_ON_TFLITE_RUNTIME = {
    "int4": "it has no kernels for int4 weights: such files give wrong numbers or crash",
    "overrides": "it computes wrong numbers from such files, without an error",
    "fallback int16": "it has no kernel that goes from int8 to int16",
}
_NO_INT16_KERNEL = {
    "litert": ("SQUARED_DIFFERENCE", "SCATTER_ND"),
    "tflite_runtime": ("SQUARED_DIFFERENCE", "SCATTER_ND", "RSQRT", "GELU", "TILE"),
}


def check_runtime(what: str, runtime: str, instead: str) -> None:
    """Raise StepError when ``what``, a mode or a setting, does not run there; ``instead`` is what does."""
    if runtime == "tflite_runtime" and what in _NOT_ON_TFLITE_RUNTIME:
        raise StepError(
            f"{what} does not run on tflite_runtime 2.14: {_NOT_ON_TFLITE_RUNTIME[what]}; "
            f'choose "runtime: litert" or {instead}'
        )


def check_int16_kernels(content: bytes, runtime: str) -> None:
    """Raise StepError when a flatbuffer has operators in int16 that the runtime cannot compute."""
    missing = _NO_INT16_KERNEL.get(runtime, ())
    bad = {
        operator.name
        for graph in read_model(content).subgraphs
        for operator in graph.operators
        if operator.name in missing and any(graph.tensors[place].dtype == "int16" for place in operator.inputs)
    }
    if bad:
        raise StepError(
            f"mode int16x8 does not run on {runtime}: it has no int16 kernel for {', '.join(sorted(bad))}; "
            'choose "mode: int8" or "mode: dynamic_range"'
        )


def check_model(source: Convertible, mode: str) -> None:
    """Raise StepError for a model that cannot be quantized in ``mode``: quantized already, loops, integer inputs."""
    _check_not_quantized(source.model)
    kinds = _operator_kinds(source.function())
    if mode != "int8" and _is_fixed(kinds):
        raise StepError(
            f"mode {mode} does not fit a model of quantization-aware training, whose ranges are fixed for int8; "
            'choose "quantization: {mode: int8}"'
        )
    if mode not in CALIBRATED:
        return
    if mode == "int16x8" and not source.data.dtype.startswith("float"):
        raise StepError(
            f"mode int16x8 does not take inputs of {source.data.dtype}: TensorFlow finds no range for them; "
            'choose "mode: int8" or "mode: dynamic_range"'
        )
    # A fused recurrent layer has a loop in TensorFlow and none in the flatbuffer.
    if any("While" in kind for kind in kinds) and _has_loop(source.flatbuffer()):
        raise StepError(
            f"mode {mode} cannot be calibrated through the loop of a recurrent layer: TensorFlow crashes; build the "
            'layer with unroll=True, or choose "mode: dynamic_range"'
        )


def check_not_trained_for_int8(source: Convertible) -> None:
    """Raise StepError for a model of quantization-aware training."""
    if _is_fixed(_operator_kinds(source.function())):
        raise StepError(
            "selective_quantization has nothing to choose in a model of quantization-aware training, whose ranges are "
            'fixed for int8; choose "quantization: {mode: int8}"'
        )


def _is_fixed(kinds: set[str]) -> bool:
    return any(kind.startswith("FakeQuant") for kind in kinds)


def _check_not_quantized(model: Any) -> None:
    quantized = [layer.name for layer in getattr(model, "layers", ()) if getattr(layer, "quantization_mode", None)]
    if quantized:
        raise StepError(
            f"the model is quantized already: Keras has done it to {', '.join(quantized)}; save it before quantize()"
        )


def _operator_kinds(function: Any) -> set[str]:
    definition = function.graph.as_graph_def()
    nodes = [*definition.node, *(node for called in definition.library.function for node in called.node_def)]
    return {node.op for node in nodes}


def _has_loop(content: bytes) -> bool:
    return any(operator.name == "WHILE" for graph in read_model(content).subgraphs for operator in graph.operators)
