"""LiteRT's profiler: the time of each operator, those inside XNNPACK one by one.

The Python interface does not offer it, so the C interface is called in the wheel's library. It times in whole
microseconds and makes each invoke longer by tens of them: a pass of its own, over many invokes. XNNPACK rounds down, so
each of its operators may take up to 1 µs more than is told.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.runtimes import BatchRefused, ProfileUnavailable, Tensor, TimedOperator, _interpreter
from device_agent.runtimes import _litert_c as c

# A full buffer, 524,288 events, drops what follows without a word; it is emptied long before.
_CAPACITY = 524_288
_EVENTS_A_ROUND = 100_000
# Kinds of events of tflite/core/api/profiler.h; the others, such as "Invoke", contain these.
_SOURCES = {2: "builtin", 4: "delegate", 8: "xnnpack"}


class LiteRtProfiler:
    """A compiled model with LiteRT's profiler; ``inputs`` are the flatbuffer's own, of one sample."""

    def __init__(
        self,
        library: c.Library,
        model: ctypes.c_void_p,
        profiler: ctypes.c_void_p,
        buffers: tuple[c.Buffers, c.Buffers],
        inputs: tuple[Tensor, ...],
    ) -> None:
        self.inputs = inputs
        self._library = library
        self._model = model
        self._profiler = profiler
        self._given, self._taken = buffers

    def set_input(self, index: int, array: NDArray[Any]) -> None:
        """Copy ``array`` into the model; its bytes must be as many as the input's."""
        self._given.write(index, array.tobytes())

    def invoke(self) -> None:
        """Run the model once."""
        given, taken = self._given, self._taken
        self._library.call(
            "RunCompiledModel", self._model, c.SIGNATURE, given.count, given.array, taken.count, taken.array
        )

    def profile(self, min_invokes: int, duration_s: float) -> tuple[tuple[TimedOperator, ...], list[int]]:
        """Return the operators in the order they ran, and the time in ns of each profiled invoke.

        Raises:
            ProfileUnavailable: if events were lost, the operators differ from one invoke to the next, or they are
                too short for the runtime's clock.
        """
        events, _ = self._record(1)
        operators, events_an_invoke = _operators_of(events), len(events)
        if not operators or events_an_invoke > _CAPACITY // 2:
            raise ProfileUnavailable(f"litert recorded {events_an_invoke} events in one invoke: not to be used")
        rows_us: list[NDArray[np.float64]] = []
        taken_ns: list[int] = []
        deadline = time.monotonic() + duration_s
        while len(taken_ns) < min_invokes or time.monotonic() < deadline:
            invokes = min(max(1, _EVENTS_A_ROUND // events_an_invoke), max(16, min_invokes))
            events, round_ns = self._record(invokes)
            if _operators_of(events) != operators * invokes:
                raise ProfileUnavailable("litert ran other operators in one invoke than in the next, or lost events")
            rows_us.append(_elapsed_us(events).reshape(invokes, -1))
            taken_ns += round_ns
        means_ns = _middle_mean(np.concatenate(rows_us)) * 1000
        _check_resolution(operators, float(means_ns.sum()))
        named = zip(operators, means_ns)
        return tuple(TimedOperator(name, source, float(mean_ns)) for (name, source), mean_ns in named), taken_ns

    def _record(self, invokes: int) -> tuple[Any, list[int]]:
        """Return the events of so many invokes, a structured array, and how long each invoke took in ns."""
        self._library.call("ResetProfiler", self._profiler)
        self._library.call("StartProfiler", self._profiler)
        clock, taken_ns = time.perf_counter_ns, []
        for _ in range(invokes):
            begin = clock()
            self.invoke()
            taken_ns.append(clock() - begin)
        self._library.call("StopProfiler", self._profiler)
        count = ctypes.c_int()
        self._library.call("GetNumProfilerEvents", self._profiler, ctypes.byref(count))
        events = (c.Event * count.value)()
        self._library.call("GetProfilerEvents", self._profiler, count, events)
        return np.ctypeslib.as_array(events), taken_ns


def open_profiler(path: str, threads: int, delegate: str, batch: int) -> LiteRtProfiler:
    """Open a file with a profiler; ``delegate`` is "xnnpack" or "none".

    Raises:
        ProfileUnavailable: if the wheel's library cannot do that.
        BatchRefused: if the graph does not take ``batch`` samples at a time.
    """
    from ai_edge_litert import interpreter

    inputs = _interpreter.read_flatbuffer(interpreter, path).inputs
    try:
        library = c.load_library()
        environment = library.create("CreateEnvironment", 0, None)
        loaded = library.create("CreateModelFromFile", environment, path.encode())
        model = library.create("CreateCompiledModel", environment, loaded, _options(library, threads, delegate))
        profiler = library.create("CompiledModelGetProfiler", model)
        signature = library.create("GetModelSignature", loaded, c.SIGNATURE)
        if batch != 1:
            _resize(library, model, inputs, batch)
        given = _input_buffers(library, environment, model, signature)
        taken = _output_buffers(library, environment, model, signature)
    except c.LiteRtError as error:
        raise ProfileUnavailable(f"litert has no per-operator profile of this model: {error}") from error
    return LiteRtProfiler(library, model, profiler, (given, taken), inputs)


def _options(library: c.Library, threads: int, delegate: str) -> ctypes.c_void_p:
    options = library.create("CreateOptions")
    library.call("SetOptionsHardwareAccelerators", options, c.CPU)
    kernels = "builtin" if delegate == "none" else "xnnpack"
    library.add_options(options, "xnnpack", f'num_threads = {threads}\nkernel_mode = "{kernels}"\n')
    library.add_options(options, "runtime_options_string", "enable_profiling = true\n")
    return options


def _resize(library: c.Library, model: ctypes.c_void_p, inputs: Sequence[Tensor], batch: int) -> None:
    for place, tensor in enumerate(inputs):
        shape = _interpreter.resized(tensor.shape, batch, tensor.name)
        sizes = (ctypes.c_int * len(shape))(*shape)
        resize = "CompiledModelResizeInputTensorNonStrict"
        try:
            library.call(resize, model, c.SIGNATURE, ctypes.c_size_t(place), sizes, ctypes.c_size_t(len(shape)))
        except c.LiteRtError as error:
            raise BatchRefused(f"a batch of {batch} is not possible: {error}") from error


def _input_buffers(
    library: c.Library, environment: ctypes.c_void_p, model: ctypes.c_void_p, signature: ctypes.c_void_p
) -> c.Buffers:
    handles = []
    for place in map(ctypes.c_size_t, range(library.count("GetNumSignatureInputs", signature))):
        kind = _type_of(library, library.create("GetSignatureInputTensorByIndex", signature, place))
        # The file's shape may leave sizes open; the compiled model's does not.
        library.call("GetCompiledModelInputTensorLayout", model, c.SIGNATURE, place, ctypes.byref(kind.layout))
        needs = library.create("GetCompiledModelInputBufferRequirements", model, c.SIGNATURE, place)
        handles.append(_buffer(library, environment, kind, needs))
    return c.Buffers(library, handles)


def _output_buffers(
    library: c.Library, environment: ctypes.c_void_p, model: ctypes.c_void_p, signature: ctypes.c_void_p
) -> c.Buffers:
    count = library.count("GetNumSignatureOutputs", signature)
    layouts = (c.Layout * count)()
    library.call(
        "GetCompiledModelOutputTensorLayouts", model, c.SIGNATURE, ctypes.c_size_t(count), layouts, ctypes.c_bool(True)
    )
    handles = []
    for place in range(count):
        tensor = library.create("GetSignatureOutputTensorByIndex", signature, ctypes.c_size_t(place))
        kind = c.TensorType(_type_of(library, tensor).element_type, layouts[place])
        needs = library.create("GetCompiledModelOutputBufferRequirements", model, c.SIGNATURE, ctypes.c_size_t(place))
        handles.append(_buffer(library, environment, kind, needs))
    return c.Buffers(library, handles)


def _type_of(library: c.Library, tensor: ctypes.c_void_p) -> c.TensorType:
    kind = c.TensorType()
    library.call("GetRankedTensorType", tensor, ctypes.byref(kind))
    return kind


def _buffer(
    library: c.Library, environment: ctypes.c_void_p, kind: c.TensorType, needs: ctypes.c_void_p
) -> ctypes.c_void_p:
    create = "CreateManagedTensorBufferFromRequirements"
    return library.create(create, environment, ctypes.byref(kind), needs)


def _operators_of(events: Any) -> list[tuple[str, str]]:
    """Return the name and the source of each event that is an operator, in order."""
    names: dict[int, str] = {}
    found = []
    for address, kind in zip(events["tag"].tolist(), events["kind"].tolist()):
        if kind in _SOURCES:
            if address not in names:
                names[address] = ctypes.string_at(address).decode(errors="replace")
            found.append((names[address], _SOURCES[kind]))
    return found


def _check_resolution(operators: list[tuple[str, str]], sum_ns: float) -> None:
    """Raise ProfileUnavailable where rounding may hide more than is shown.

    XNNPACK rounds each time down to a whole microsecond, which no number of invokes averages out; the runtime's own
    kernels have rounded begins and ends, which does.
    """
    rounded = sum(source == "xnnpack" for _, source in operators)
    if sum_ns < rounded * 1000:
        raise ProfileUnavailable(
            f"XNNPACK rounds the time of each operator down to 1 µs: too coarse for {rounded} operators that show "
            f"{sum_ns / 1000:.1f} µs together; a larger batch makes them longer"
        )


def _middle_mean(rows_us: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean of each operator over the half of the invokes that is in the middle by their sums.

    The mean, since times are whole microseconds; the middle, since one preemption would outweigh a thousand invokes.
    """
    order = np.argsort(rows_us.sum(axis=1), kind="stable")
    cut = len(order) // 4
    mean: NDArray[np.float64] = rows_us[order[cut : len(order) - cut]].mean(axis=0)
    return mean


def _elapsed_us(events: Any) -> NDArray[np.float64]:
    elapsed: NDArray[np.float64] = events["elapsed_us"][np.isin(events["kind"], list(_SOURCES))].astype(np.float64)
    return elapsed
