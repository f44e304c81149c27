"""The timing pass: how long one invoke takes, and nothing else."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from device_agent.blocks import Request
from device_agent.memory import peak_rss_bytes
from device_agent.protocol import MeasureSpec, MemorySplit, TimingBlock
from device_agent.samples import npy_bytes
from device_agent.sensors import conditions_between, read_moment
from device_agent.session import Session, failing_as, open_session

_AGREEMENT = 0.02
_LONGEST_WARMUP = 5
_WARMUP_BLOCKS = 4


def run(request: Request) -> tuple[TimingBlock, dict[str, bytes]]:
    """Time the model of ``request``; return the block and its file of raw invoke times in ns, int64 [invokes]."""
    root = Path(request.root)
    session = open_session(request, request.spec.models[request.block.model].batch)
    measure, loaded_bytes = request.spec.measure, peak_rss_bytes()
    first_invoke_ns = invoke_first(session)
    invoked_bytes = peak_rss_bytes()
    with failing_as("invoke"), without_gc():
        warmup_invokes = warm_up(session.model.invoke, measure.warmup_s)
        before = read_moment(root)
        invoke_ns = time_invokes(session.model.invoke, measure)
        after = read_moment(root)
    runtime_bytes = session.runtime_rss_bytes
    block = TimingBlock(
        process=request.block.process,
        load_ns=session.load_ns,
        first_invoke_ns=first_invoke_ns,
        warmup_invokes=warmup_invokes,
        invokes=len(invoke_ns),
        median_ns=int(np.median(invoke_ns)),
        peak_rss_bytes=peak_rss_bytes(),
        file_name=request.samples_name,
        memory=MemorySplit(runtime_bytes, loaded_bytes - runtime_bytes, invoked_bytes - loaded_bytes),
        conditions=conditions_between(before, after, request.spec.conditions),
        elapsed_s=time.monotonic() - request.started_s,
        attempt=request.block.attempt,
    )
    return block, {request.samples_name: npy_bytes(invoke_ns)}


def invoke_first(session: Session) -> int:
    """Time the first invoke, of the first sample, in ns, and see that the metric takes what comes out of it.

    That a model cannot be scored should be known before it is timed for minutes."""
    with failing_as("invoke"):
        session.model.set_input(0, session.samples.input(0))
        begin = time.perf_counter_ns()
        session.model.invoke()
        first_invoke_ns = time.perf_counter_ns() - begin
        outputs = session.outputs(0)
    session.score(outputs[0][None], 0)
    return first_invoke_ns


def warm_up(invoke: Callable[[], None], warmup_s: float) -> int:
    """Invoke for at least ``warmup_s`` and until the medians of two successive blocks differ by at most 2 %, at most
    five times as long; return how often."""
    begin, invokes, before = time.perf_counter_ns(), 0, 0.0
    warmup_ns = warmup_s * 1e9
    while warmup_ns:
        block = _invoke_for(invoke, warmup_ns / _WARMUP_BLOCKS)
        invokes += len(block)
        median, elapsed = float(np.median(block)), time.perf_counter_ns() - begin
        steady = abs(median - before) <= _AGREEMENT * before
        if elapsed >= _LONGEST_WARMUP * warmup_ns or (steady and elapsed >= warmup_ns):
            break
        before = median
    return invokes


def _invoke_for(invoke: Callable[[], None], duration_ns: float) -> list[int]:
    clock = time.perf_counter_ns
    deadline, taken = clock() + duration_ns, []
    while True:
        begin = clock()
        invoke()
        end = clock()
        taken.append(end - begin)
        if end >= deadline:
            return taken


def time_invokes(invoke: Callable[[], None], measure: MeasureSpec) -> NDArray[np.int64]:
    """Time single invokes in ns until there are enough of them over long enough a time, or as many as may be."""
    taken = np.zeros(measure.max_invokes, np.int64)
    clock, min_invokes = time.perf_counter_ns, measure.min_invokes
    deadline, count = clock() + measure.timing_s * 1e9, 0
    while count < measure.max_invokes:
        begin = clock()
        invoke()
        end = clock()
        taken[count] = end - begin
        count += 1
        if count >= min_invokes and end >= deadline:
            break
    return taken[:count]


@contextmanager
def without_gc() -> Iterator[None]:
    """Keep Python's garbage collector from running in between."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
