"""The samples of a job as a model takes them, and a model's outputs as real numbers."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.protocol import DataSpec
from device_agent.runtimes import Tensor


class DataMismatch(ValueError):
    """Data that the model cannot be given; the text has both shapes."""


@dataclass(frozen=True)
class Samples:
    """Memory-mapped inputs and labels, to be given to a model's only input ``tensor``."""

    inputs: NDArray[Any]
    labels: NDArray[Any]
    spec: DataSpec
    tensor: Tensor
    batch: int = 1

    def input(self, index: int) -> NDArray[Any]:
        """Return one sample, or a batch from there on, with the model's shape and type."""
        if self.batch == 1:
            sample = np.asarray(self.inputs[index])
        else:
            sample = self.inputs[np.arange(index, index + self.batch) % self.spec.samples]
        if self._is_taken_as_it_is:
            return sample.astype(self.tensor.dtype).reshape(self.tensor.shape)
        real = sample.astype(np.float32) * np.float32(self.spec.scale) + np.float32(self.spec.offset)
        return quantize(real, self.tensor).reshape(self.tensor.shape)

    @property
    def _is_taken_as_it_is(self) -> bool:
        # float32 would round the larger integers, token numbers for example.
        plain = (self.spec.scale, self.spec.offset, self.tensor.scale) == (1.0, 0.0, 0.0)
        return plain and self.inputs.dtype.kind in "iu" and self.tensor.dtype.startswith(("int", "uint"))


def open_samples(
    inputs_path: str, labels_path: str, spec: DataSpec, tensors: tuple[Tensor, ...], batch: int = 1
) -> Samples:
    """Map the two ``.npy`` files and see that they fit the inputs of a model that takes ``batch`` samples at once.

    Raises:
        DataMismatch: if they do not: too few samples, another shape, or a model with several inputs.
        ValueError: if a file is not an ``.npy`` array.
    """
    if len(tensors) != 1:
        raise DataMismatch(f"model has {len(tensors)} inputs; expected one")
    inputs = np.load(inputs_path, mmap_mode="r", allow_pickle=False)
    labels = np.load(labels_path, mmap_mode="r", allow_pickle=False)
    for name, array in (("inputs", inputs), ("labels", labels)):
        if not array.ndim or len(array) < spec.samples:
            raise DataMismatch(f"{name} have the shape {list(array.shape)}; expected at least {spec.samples} samples")
    _check_shape(inputs.shape[1:], tensors[0].shape, batch)
    return Samples(inputs, labels[: spec.samples], spec, tensors[0], batch)


def _check_shape(sample: tuple[int, ...], model: tuple[int, ...], batch: int) -> None:
    if model not in ((batch, *sample), (batch, *sample, 1)):
        shapes = f"model input has the shape {list(model)}, a sample {list(sample)}"
        raise DataMismatch(f"{shapes}; expected the input to be {[batch, *sample]} or {[batch, *sample, 1]}")


def npy_bytes(array: NDArray[Any]) -> bytes:
    """Return ``array`` as the content of an ``.npy`` file."""
    content = io.BytesIO()
    np.save(content, array, allow_pickle=False)
    return content.getvalue()


def quantize(real: NDArray[np.float32], tensor: Tensor) -> NDArray[Any]:
    """Return real numbers in the tensor's type: q = round(r / scale) + zero_point, clipped to the type's range.

    Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference" (2018),
    equation 1, with halves rounded away from zero, as TFLite's own QUANTIZE does. An integer tensor without a scale is
    given the rounded numbers themselves.
    """
    if not tensor.dtype.startswith(("int", "uint")):
        return real.astype(tensor.dtype)
    scaled = real.astype(np.float64) / (tensor.scale or 1.0)
    steps = np.copysign(np.floor(np.abs(scaled) + 0.5), scaled) + tensor.zero_point
    limits = np.iinfo(tensor.dtype)
    clipped: NDArray[Any] = np.clip(steps, limits.min, limits.max).astype(tensor.dtype)
    return clipped


def dequantize(array: NDArray[Any], tensor: Tensor) -> NDArray[Any]:
    """Return the real numbers that a quantized output stands for: r = scale * (q - zero_point); others unchanged."""
    if not tensor.scale or array.dtype.kind not in "iu":
        return array
    return ((array.astype(np.float32) - tensor.zero_point) * np.float32(tensor.scale)).astype(np.float32)
