"""The limit on processor time, with the stand-in runtime: in each pass, and beside the other limits."""

import numpy as np
import pytest

from device_agent.protocol import LimitSpec, MeasureSpec

LONG = 3_600_000_000
ONCE = MeasureSpec(processes=1, warmup_s=0, timing_s=0, min_invokes=8, max_invokes=8)


@pytest.mark.parametrize("memory_mib", [0, 512])
def test_a_busy_model_is_ended_at_the_limit_on_processor_time(agent, host, memory_mib):
    limits = LimitSpec(wall_s=60, cpu_s=1, memory_mib=memory_mib)
    spec = agent.spec(agent.null_model("bad", invoke_us=LONG), agent.null_model("good"), measure=ONCE, limits=limits)
    result = host.measure(spec)
    [failure] = result.failures
    message = "timing took more than 1 s of CPU time"
    assert (failure.model, failure.kind, failure.message) == ("bad", "timeout", message)
    assert [measured.model for measured in result.measurements] == ["good"]


def test_a_model_that_is_busy_while_it_is_scored_is_ended_there(agent, host):
    # Far more than the limit, since it is busy by the clock on the wall and others may have the processor.
    data = agent.data(inputs=np.eye(60, 4, dtype=np.float32), labels=np.zeros(60, np.int64))
    measure = MeasureSpec(processes=1, warmup_s=0, timing_s=0, min_invokes=1, max_invokes=1)
    spec = agent.spec(agent.null_model(invoke_us=100_000), data=data, measure=measure, limits=LimitSpec(60, cpu_s=1))
    [failure] = host.measure(spec).failures
    assert failure.message == "scoring took more than 1 s of CPU time"


def test_a_model_that_sleeps_takes_no_processor_time(agent, host):
    model = agent.null_model(fault="hang")
    [failure] = host.measure(agent.spec(model, measure=ONCE, limits=LimitSpec(wall_s=2, cpu_s=1))).failures
    assert failure.message == "timing took longer than 2 s"
