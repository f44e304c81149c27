"""A model with its data and metric, opened in a child process: what both passes begin with, and how they fail."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent import metrics, runtimes
from device_agent.blocks import Request
from device_agent.files import is_disk_full
from device_agent.memory import peak_rss_bytes
from device_agent.protocol import blob_path
from device_agent.samples import Samples, dequantize, open_samples


class BlockFailed(Exception):
    """The reason why a block has no result; ``kind`` as in ``protocol.Failure``."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@contextmanager
def failing_as(kind: str) -> Iterator[None]:
    """Turn what goes wrong inside into ``BlockFailed(kind)``; memory, disk and delegate have kinds of their own."""
    try:
        yield
    except (BlockFailed, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and is_disk_full(error):
            raise BlockFailed("disk", str(error)) from error
        if isinstance(error, runtimes.DelegateUnavailable):
            kind = "delegate"
        if _is_out_of_memory(error):
            raise MemoryError from error
        raise BlockFailed(kind, str(error) or type(error).__name__) from error


def _is_out_of_memory(error: Exception) -> bool:
    """LiteRT 2.3 raises a RuntimeError without a word when the kernel refuses it memory, as it does at a limit."""
    is_limited = resource.getrlimit(resource.RLIMIT_DATA)[0] != resource.RLIM_INFINITY
    return is_limited and type(error) is RuntimeError and not str(error)


@dataclass(frozen=True)
class Session:
    """An opened model, the samples in its own form, and the metric to score it with."""

    model: runtimes.Model
    samples: Samples
    metric: metrics.Metric
    load_ns: int
    runtime_rss_bytes: int

    def infer(self, index: int) -> list[NDArray[Any]]:
        """Return the model's outputs for one sample, as real numbers without the batch dimension."""
        with failing_as("invoke"):
            self.model.set_input(0, self.samples.input(index))
            self.model.invoke()
            return self.outputs(index)

    def outputs(self, index: int) -> list[NDArray[Any]]:
        """Return what the last invoke, of the sample ``index``, has left in each output; of a batch the first sample's.

        Raises:
            BlockFailed: if there is a number that is not finite.
        """
        found = [dequantize(self.model.get_output(place), tensor) for place, tensor in enumerate(self.model.outputs)]
        if not all(np.isfinite(output).all() for output in found):
            raise BlockFailed("invoke", f"output is not finite for sample {index}")
        batch = self.samples.batch
        return [output[0] if output.ndim > 1 and output.shape[0] == batch else output for output in found]

    def score(self, outputs: NDArray[Any], start: int) -> NDArray[np.float32]:
        """Return the metric of outputs [samples, …] that belong to the samples from ``start`` on."""
        with failing_as("metric"):
            return self.metric(outputs, np.asarray(self.samples.labels[start : start + len(outputs)]))


def open_session(request: Request, batch: int = 1) -> Session:
    """Open the model of ``request``, its data and its metric; one invoke takes ``batch`` samples.

    Raises:
        BlockFailed: of the kind "runtime", "load", "delegate", "data" or "metric".
    """
    spec = request.spec.models[request.block.model]
    with failing_as("metric"):
        metric = metrics.find(request.spec.metric)
    with failing_as("runtime"):
        runtime = runtimes.find(spec.runtime)
        # Imports the native library, which is not part of loading a model.
        runtime.probe()
    runtime_rss_bytes = peak_rss_bytes()
    with failing_as("load"):
        begin = time.perf_counter_ns()
        model = runtime.open_model(request.model_path, spec.threads, spec.delegate, batch)
        load_ns = time.perf_counter_ns() - begin
    with failing_as("data"):
        data = request.spec.data
        inputs_path = blob_path(request.home, data.inputs_sha256)
        labels_path = blob_path(request.home, data.labels_sha256)
        samples = open_samples(inputs_path, labels_path, data, model.inputs, batch)
    return Session(model, samples, metric, load_ns, runtime_rss_bytes)
