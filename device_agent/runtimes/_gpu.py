"""Models on the GPU, by LiteRT's ``CompiledModel``: its accelerator in the wheel drives Vulkan.

The GPU is asked for alone, without the CPU beside it: LiteRT then refuses a model of which it would leave operators to
the CPU, so that a time says what the GPU does.

Outputs may differ from the CPU's, so a model is to be scored on the GPU itself: quantized models run in floating point,
and LiteRT 2.3 computes a quantized 1x1 convolution of stride 2 as if it had stride 1 (107 of 255 steps off, where one
of stride 1 or of 3x3 is off by 1 at most; seen on a software Vulkan device). float32 agreed within 2e-5.
"""

from __future__ import annotations

import ctypes
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.runtimes import BatchRefused, DelegateUnavailable, Operator, Tensor, _interpreter

_NEEDS = "it needs libvulkan.so.1, a Vulkan device, and a model with sizes that are fixed and operators it all takes"


class GpuModel:
    """A model on the GPU; inputs and outputs have the order that the flatbuffer gives them.

    Args:
        compiled: the ``CompiledModel``, of the file's first signature.
        inputs, outputs: the tensors, in the flatbuffer's order.
        places: for each of them its place in the signature.
        operators: the names of the flatbuffer's operators.
    """

    def __init__(
        self,
        compiled: Any,
        inputs: tuple[Tensor, ...],
        outputs: tuple[Tensor, ...],
        places: tuple[list[int], list[int]],
        operators: tuple[str, ...],
    ) -> None:
        self.inputs = inputs
        self.outputs = outputs
        self._compiled = compiled
        self._operators = operators
        self._input_buffers = compiled.create_input_buffers(0)
        self._output_buffers = compiled.create_output_buffers(0)
        self._given = [self._input_buffers[place] for place in places[0]]
        self._taken = [self._output_buffers[place] for place in places[1]]
        self._results: list[NDArray[Any]] = []

    def set_input(self, index: int, array: NDArray[Any]) -> None:
        """Copy ``array`` into the model.

        Raises:
            ValueError: if it is of another shape or type than the input.
        """
        tensor = self.inputs[index]
        if array.shape != tensor.shape or array.dtype != tensor.dtype:
            raise ValueError(f"input is {array.dtype} {array.shape}; expected {tensor.dtype} {tensor.shape}")
        self._given[index].write(array)

    def invoke(self) -> None:
        """Run the model and bring its outputs back.

        The run alone returns while the GPU still works; only reading waits for it. A result that is still on the GPU
        is none yet, so the copy back belongs to the time of an invoke.
        """
        self._compiled.run_by_index(0, self._input_buffers, self._output_buffers)
        self._results = [
            buffer.read(int(np.prod(tensor.shape)), np.dtype(tensor.dtype))
            for buffer, tensor in zip(self._taken, self.outputs)
        ]

    def get_output(self, index: int) -> NDArray[Any]:
        """Return a copy of an output of the last invoke."""
        return self._results[index].reshape(self.outputs[index].shape).copy()

    def operators(self) -> tuple[Operator, ...]:
        """Return the operators of the main subgraph.

        LiteRT does not say which operators the GPU took, only whether it took all of them; where it did not, none is
        claimed to be delegated.
        """
        whole = bool(self._compiled.is_fully_accelerated())
        return tuple(Operator(name, whole) for name in self._operators)


def open_on_gpu(path: str, batch: int) -> GpuModel:
    """Open a file on the GPU.

    Raises:
        DelegateUnavailable: if there is no Vulkan device, or the GPU cannot run the whole model.
        BatchRefused: if the graph does not take ``batch`` samples at a time.
        ValueError: if the file is no model.
    """
    from ai_edge_litert import compiled_model, interpreter

    flatbuffer = _interpreter.read_flatbuffer(interpreter, path)
    try:
        compiled = compiled_model.CompiledModel.from_file(path, hardware_accel=compiled_model.HardwareAccelerator.GPU)
    except RuntimeError as error:
        raise DelegateUnavailable(f"litert cannot run this model on the gpu: {_reason(error)}; {_NEEDS}") from error
    if batch != 1:
        _resize(compiled, batch)
    key = compiled.get_signature_by_index(0)["key"]
    given, taken = compiled.get_input_tensor_details(key), compiled.get_output_tensor_details(key)
    inputs, input_places = _in_order(flatbuffer.inputs, flatbuffer.input_indices, given)
    outputs, output_places = _in_order(flatbuffer.outputs, flatbuffer.output_indices, taken)
    if batch != 1:
        _interpreter.check_batched(outputs, batch)
    return GpuModel(compiled, inputs, outputs, (input_places, output_places), flatbuffer.operators)


def _resize(compiled: Any, batch: int) -> None:
    key = compiled.get_signature_by_index(0)["key"]
    try:
        for place, details in enumerate(compiled.get_input_tensor_details(key).values()):
            shape = _interpreter.resized(tuple(details["shape"]), batch, details["name"])
            compiled.resize_input_tensor(place, shape, strict=False)
        # Only now are the sizes inside the graph looked at.
        compiled.get_output_tensor_details(key)
    except RuntimeError as error:
        raise BatchRefused(f"a batch of {batch} is not possible on the gpu: {_reason(error)}") from error


def _in_order(
    tensors: tuple[Tensor, ...], indices: tuple[int, ...], signature: dict[str, dict[str, Any]]
) -> tuple[tuple[Tensor, ...], list[int]]:
    """Return the tensors in the shapes of the compiled model, and the place of each in the signature."""
    place_of = {details["index"]: place for place, details in enumerate(signature.values())}
    shape_of = {details["index"]: tuple(details["shape"]) for details in signature.values()}
    shaped = tuple(replace(tensor, shape=shape_of[index]) for tensor, index in zip(tensors, indices))
    return shaped, [place_of[index] for index in indices]


def _reason(error: RuntimeError) -> str:
    try:
        ctypes.CDLL("libvulkan.so.1")
    except OSError as missing:
        return str(missing)
    # LiteRT puts the places in its source first and the reason, if there is one, last.
    return str(error).splitlines()[-1].lstrip("└ ")
