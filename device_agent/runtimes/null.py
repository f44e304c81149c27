"""No runtime at all: a deterministic stand-in to test the machinery with. Its times and scores say nothing.

A model is a JSON file such as ``{"input_shape": [1, 4], "output": [0.1, 0.9], "invoke_us": 100, "fault": "segfault"}``:

* ``input_shape``, ``dtype`` ("float32"), ``scale`` and ``zero_point`` of the input; the output has the same type.
* ``output``: what every invoke answers, as [batch, n] in real numbers; without it the input comes back as [batch, n].
* ``invoke_us``: how long an invoke keeps the processor busy.
* ``sleep_us``: how long an invoke sleeps, for many boards on one machine.
* ``work``: how many multiplications of two 48x48 matrices an invoke does, for times with a machine's own noise.
* ``fault``: "segfault", "abort", "kill", "exit", "hang", "raise", "nan", "memory" or "disk", none of them simulated;
  at the first invoke, after ``fault_after`` invokes, or with ``"fault_at": "load"`` when the model is opened.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.runtimes import Model, Operator, Profiler, ProfileUnavailable, Tensor, check_delegate


def version() -> str:
    """Return the version of the stand-in."""
    return "1"


def probe() -> None:
    """Do nothing: numpy, all that is needed, has been imported."""


def open_model(path: str, threads: int, delegate: str, batch: int) -> Model:
    """Open a JSON file as described above; ``threads`` and ``delegate``, "xnnpack" or "none", change nothing."""
    check_delegate("null", delegate, ("xnnpack", "none"))
    description = json.loads(Path(path).read_bytes())
    if batch != 1:
        description["input_shape"][0] = batch
    if description.get("fault_at") == "load":
        _FAULTS[description["fault"]]()
    return _NullModel(description, batch)


def open_profiler(path: str, threads: int, delegate: str, batch: int) -> Profiler:
    """Raise ProfileUnavailable: the stand-in has no operators."""
    raise ProfileUnavailable("null has no per-operator profile; litert has one")


class _NullModel:
    def __init__(self, description: dict[str, Any], batch: int) -> None:
        dtype, shape = description.get("dtype", "float32"), tuple(description["input_shape"])
        scale, zero_point = description.get("scale", 0.0), description.get("zero_point", 0)
        self._input = np.zeros(shape, dtype)
        self._output: NDArray[Any] | None = None
        if "output" in description:
            real = np.array([description["output"]] * batch, np.float32)
            self._output = (real / scale + zero_point if scale else real).astype(dtype)
        size = (self._input.size if self._output is None else self._output.size) // batch
        self.inputs: tuple[Tensor, ...] = (Tensor("input", shape, dtype, scale, zero_point),)
        self.outputs: tuple[Tensor, ...] = (Tensor("output", (batch, size), dtype, scale, zero_point),)
        self._invoke_ns = description.get("invoke_us", 0) * 1000
        self._sleep_s = description.get("sleep_us", 0) / 1e6
        self._invokes_left = description.get("fault_after", 0)
        self._work = range(description.get("work", 0))
        self._left, self._right, self._product = _aligned_matrices()
        self._fault = _FAULTS.get(description.get("fault", "")) if description.get("fault") != "nan" else self._spoil

    def set_input(self, index: int, array: NDArray[Any]) -> None:
        if array.shape != self._input.shape or array.dtype != self._input.dtype:
            raise ValueError(f"input is {array.dtype} {array.shape}; expected {self._input.dtype} {self._input.shape}")
        self._input[...] = array

    def invoke(self) -> None:
        if self._fault and self._invokes_left <= 0:
            self._fault()
        self._invokes_left -= 1
        for _ in self._work:
            np.matmul(self._left, self._right, out=self._product)
        if self._sleep_s:
            time.sleep(self._sleep_s)
        deadline = time.perf_counter_ns() + self._invoke_ns
        while time.perf_counter_ns() < deadline:
            pass

    def get_output(self, index: int) -> NDArray[Any]:
        return self._input.reshape(self.outputs[0].shape).copy() if self._output is None else self._output.copy()

    def operators(self) -> tuple[Operator, ...]:
        return ()

    def _spoil(self) -> None:
        self._output = np.full(self.outputs[0].shape, np.nan, np.float32)


def _aligned_matrices() -> NDArray[np.float32]:
    """Return three matrices [3, 48, 48] that begin a page: where they lie would change the time by several per cent."""
    content = np.zeros(3 * 48 * 48 * 4 + 4096, np.uint8)
    start = -content.ctypes.data % 4096
    matrices: NDArray[np.float32] = content[start : start + 3 * 48 * 48 * 4].view(np.float32).reshape(3, 48, 48)
    matrices[:2] = 0.5
    return matrices


def _segfault() -> None:
    ctypes.string_at(0)


def _raise() -> None:
    raise RuntimeError("the model was told to raise")


def _hang() -> None:
    while True:
        signal.pause()


def _exhaust_memory() -> None:
    if resource.getrlimit(resource.RLIMIT_DATA)[0] == resource.RLIM_INFINITY:
        raise RuntimeError("the model was told to exhaust the memory, but there is no limit to keep the machine safe")
    hoard = []
    while True:
        hoard.append(bytes(1 << 24))


def _fill_disk() -> None:
    with Path("/dev/full").open("wb") as file:
        file.write(bytes(1 << 20))


_FAULTS: dict[str, Callable[[], Any]] = {
    "segfault": _segfault,
    "abort": os.abort,
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "exit": lambda: os._exit(3),
    "hang": _hang,
    "raise": _raise,
    "memory": _exhaust_memory,
    "disk": _fill_disk,
}
