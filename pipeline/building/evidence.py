"""What a step did, found in what it left behind: weights, sizes, cost, and how well it still works on this machine.

Runs in a child process: everything here may load TensorFlow.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from device_agent import metrics
from pipeline import export
from pipeline.errors import ModelError, StepError
from pipeline.flatbuffer import costs
from pipeline.flatbuffer.graph import FlatTensor, read_model
from pipeline.results.record import StepEvidence, TensorEvidence
from pipeline.training.training_data import TrainingData

MOST_SAMPLES = 2000
PREFLIGHT_SAMPLES = 32
EXPECTED = "expected"
"""The folder beside an artifact with the source model's outputs on the samples that pre-flight runs."""


@dataclass(frozen=True)
class HostScore:
    """Test samples that every step is scored on, as ``.npy`` files, the metric, and the source model's outputs on them.

    At most ``MOST_SAMPLES``, drawn by the data's seed. They are looked at by nothing but the evidence.
    """

    samples: TrainingData
    metric: str
    reference_file: Path

    @property
    def inputs(self) -> npt.NDArray[Any]:
        """The inputs [samples, …] as the model takes them."""
        return self.samples.inputs(self.samples.fixed_indices(MOST_SAMPLES))

    def write_reference(self, outputs: npt.NDArray[np.float64]) -> None:
        """Keep the source model's outputs on ``inputs``."""
        np.save(self.reference_file, outputs)

    def write_expected(self, run: Callable[[Any], npt.NDArray[np.float64]]) -> None:
        """Keep the source model's outputs, which ``run`` gives, on the samples that pre-flight runs."""
        outputs = run(self.samples.inputs(self.samples.fixed_indices(PREFLIGHT_SAMPLES)))
        self._expected.mkdir()
        # Of an output [1] the agent has all, though that is the batch.
        rows = outputs[:, None] if outputs.ndim == 1 else outputs
        np.save(self._expected / "outputs-0.npy", rows.astype(np.float32))

    def copy_expected(self, folder: Path) -> None:
        """Put what the source model gives on pre-flight's samples beside an artifact."""
        shutil.copytree(self._expected, folder / EXPECTED)

    @property
    def _expected(self) -> Path:
        return self.reference_file.with_name(EXPECTED)

    def score(self, outputs: npt.NDArray[np.float64]) -> float:
        """Return the metric of ``outputs`` as a fraction. Raises StepError for outputs that it is not defined for."""
        labels = self.samples.labels
        assert labels is not None
        try:
            values = metrics.find(self.metric)(outputs, labels[self.samples.fixed_indices(MOST_SAMPLES)])
        except metrics.MetricMismatch as error:
            raise StepError(f"metric {self.metric} does not fit the outputs: {error}") from error
        return float(values.mean())


def step_evidence(
    step: str, content: bytes, tensors: tuple[TensorEvidence, ...], score: HostScore, parameters: int | None = None
) -> StepEvidence:
    """Return what a step did.

    Args:
        step: its name.
        content: the flatbuffer it left, or the float32 one of the model it left.
        tensors: the weights it left.
        score: what it is scored on.
        parameters: how many numbers the weights are, where the flatbuffer is not what the step left.
    """
    flat = read_model(content)
    outputs = export.flatbuffer_outputs(content, score.inputs)
    reference = np.load(score.reference_file)
    return StepEvidence(
        step=step,
        parameters=costs.parameters(flat) if parameters is None else parameters,
        macs=costs.macs(flat),
        tensors=tensors,
        size_bytes=len(content),
        gzip_bytes=export.gzip_size(content),
        score=score.score(outputs),
        snr_db=export.snr_db(reference, outputs),
        samples=len(outputs),
    )


def flatbuffer_tensors(content: bytes) -> tuple[TensorEvidence, ...]:
    """Return the weights of a flatbuffer: constants of at least two dimensions."""
    return tuple(_of_flatbuffer(tensor) for tensor in costs.weight_tensors(read_model(content)))


def model_tensors(model: Any) -> tuple[TensorEvidence, ...]:
    """Return the weights of a Keras model: variables of at least two dimensions."""
    found = ((name, values) for name, values in named_weights(model) if values.ndim >= 2)
    return tuple(
        TensorEvidence(name, values.shape, str(values.dtype), *_zeros_and_distinct(values, 0)) for name, values in found
    )


def model_parameters(model: Any) -> int:
    """Return how many numbers the weights of a Keras model are, those that are not trained among them."""
    return sum(values.size for _, values in named_weights(model))


def named_weights(model: Any) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """Yield the name and the values of each variable of a Keras model or a loaded SavedModel."""
    owners = {id(weight): layer.name for layer in getattr(model, "layers", ()) for weight in layer.weights}
    for variable in _variables(model):
        name = getattr(variable, "path", variable.name)
        # A layer that a wrapper builds gives its weights no more than their own names.
        yield name if "/" in name else f"{owners.get(id(variable), 'model')}/{name}", np.asarray(variable)


def _variables(model: Any) -> Iterable[Any]:
    if hasattr(model, "to_json"):
        return model.weights  # type: ignore[no-any-return]
    # What a SavedModel calls its own is anybody's choice; what its signatures compute with is not.
    found = [variable for signature in model.signatures.values() for variable in signature.variables]
    return {id(variable): variable for variable in found}.values()


def check_weights(model: Any) -> None:
    """Raise ModelError, naming the tensors, when a model has weights that are not finite."""
    bad = {name: int((~np.isfinite(values)).sum()) for name, values in named_weights(model) if values.dtype.kind == "f"}
    named = [f"{name} ({count} values)" for name, count in bad.items() if count]
    if named:
        raise ModelError(f"weights that are not finite: {', '.join(named)}; train the model again")


def digest(model: Any) -> str:
    """Return a hash of a Keras model's layers and weights: equal for two models that are the same."""
    state = hashlib.sha256(model.to_json().encode())
    for _, values in named_weights(model):
        state.update(np.ascontiguousarray(values).tobytes())
    return state.hexdigest()


def check_converted(step: str, content: bytes) -> None:
    """Raise StepError when a conversion that was to quantize has left every weight as a float32."""
    weights = costs.weight_tensors(read_model(content))
    if all(tensor.dtype == "float32" for tensor in weights):
        raise StepError(f"{step} changed nothing: all {len(weights)} weight tensors are still float32")


def _of_flatbuffer(tensor: FlatTensor) -> TensorEvidence:
    values = tensor.values()
    zero = int(tensor.zero_points[0]) if tensor.zero_points.size else 0
    return TensorEvidence(tensor.name, tensor.shape, tensor.dtype, *_zeros_and_distinct(values, zero))


def _zeros_and_distinct(values: npt.NDArray[Any], zero: int) -> tuple[float, int]:
    return float((values == zero).mean()) if values.size else 0.0, len(np.unique(values))
