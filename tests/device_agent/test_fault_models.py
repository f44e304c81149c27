"""Models that a real runtime dies of, refuses, or does not get done within its limits; tests/data/models has them."""

import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from device_agent.protocol import JobResult, LimitSpec, MeasureSpec, ModelSpec

MODELS = Path(__file__).parents[1] / "data" / "models"
RUNTIMES = ("litert", "tflite_runtime")
PYTHONS = {name: str(Path(sys.prefix).parent / name / "bin" / "python") for name in RUNTIMES}
ONCE = MeasureSpec(processes=1, warmup_s=0, timing_s=0, min_invokes=8, max_invokes=8)
ENDLESS = MeasureSpec(processes=1, warmup_s=3600)


@pytest.fixture(params=RUNTIMES)
def runtime(request) -> str:
    return request.param


@pytest.fixture
def agent(make_agent, runtime):
    """An agent that has only the runtime in question; asking another takes a second."""
    return make_agent(pythons={**dict.fromkeys(RUNTIMES, "/bin/false"), runtime: PYTHONS[runtime]})


def stored(name: str) -> bytes:
    return (MODELS / f"{name}.tflite").read_bytes()


def measure(agent, host, runtime: str, models: dict[str, bytes], **settings) -> JobResult:
    data = agent.data(inputs=np.ones((2, 4), np.float32), labels=np.zeros(2, np.int64))
    specs = [ModelSpec(name, agent.push(content), runtime) for name, content in models.items()]
    return host.measure(agent.spec(*specs, data=data, **{"measure": ONCE, **settings}))


def only_failure(agent, host, runtime: str, bad: bytes, **settings):
    """Return the failure of a bad model, when a good one was measured beside it and the daemon lives."""
    result = measure(agent, host, runtime, {"bad": bad, "good": stored("network")}, **settings)
    assert [(measured.model, measured.runtime) for measured in result.measurements] == [("good", runtime)]
    assert agent.children() == []
    assert host.call("status")["jobs"][0]["state"] == "done"
    [failure] = result.failures
    assert failure.model == "bad"
    return failure


def test_a_model_that_segfaults_while_it_is_opened_is_a_crash(agent, host, runtime):
    failure = only_failure(agent, host, runtime, stored("recursive_if"))
    assert (failure.kind, failure.message) == ("crash", "timing ended with SIGSEGV")
    assert "Fatal Python error: Segmentation fault" in failure.detail
    assert "allocate_tensors" in failure.detail


@pytest.mark.parametrize("runtime", ["tflite_runtime"])
def test_a_model_that_segfaults_at_its_first_invoke_is_a_crash(agent, host, runtime):
    failure = only_failure(agent, host, runtime, stored("slice_before_tensor"))
    assert (failure.kind, failure.message) == ("crash", "timing ended with SIGSEGV")
    assert "in invoke" in failure.detail


def test_a_file_that_is_no_whole_model_is_a_failure(agent, host, runtime):
    whole = stored("network")
    bad = {f"first-{length}": whole[:length] for length in (4, 20, 100, len(whole) // 2, len(whole) * 9 // 10)}
    bad |= {"noise": random.Random(1).randbytes(3000), "text": b"not a model\n" * 100, "empty": b""}
    result = measure(agent, host, runtime, {**bad, "good": whole})
    assert [measured.model for measured in result.measurements] == ["good"]
    failures = {failure.model: failure for failure in result.failures}
    assert list(failures) == list(bad)
    for failure in failures.values():
        assert failure.kind in ("load", "crash")
        assert len(failure.message) > 10


def test_a_model_that_needs_more_memory_than_the_limit_is_a_failure_that_says_so(agent, host, runtime):
    limits = LimitSpec(wall_s=60, memory_mib=512)
    failure = only_failure(agent, host, runtime, stored("tile_1gib"), limits=limits)
    assert (failure.kind, failure.message) == ("memory", "more memory was needed than the limit of 512 MiB")


def test_a_model_that_takes_more_processor_time_than_the_limit_is_a_failure_that_says_so(agent, host, runtime):
    result = measure(agent, host, runtime, {"m": stored("network")}, measure=ENDLESS, limits=LimitSpec(60, cpu_s=2))
    [failure] = result.failures
    assert (failure.kind, failure.message) == ("timeout", "timing took more than 2 s of CPU time")
    assert host.call("status")["jobs"][0]["state"] == "done"


def test_a_model_that_is_within_all_limits_is_measured(agent, host, runtime):
    limits = LimitSpec(wall_s=60, memory_mib=512, cpu_s=30)
    result = measure(agent, host, runtime, {"m": stored("network")}, limits=limits)
    assert ([measured.model for measured in result.measurements], result.failures) == (["m"], ())


def test_a_model_that_runs_past_the_wall_limit_is_a_failure_that_says_so(agent, host, runtime):
    result = measure(agent, host, runtime, {"m": stored("network")}, measure=ENDLESS, limits=LimitSpec(wall_s=3))
    [failure] = result.failures
    assert (failure.kind, failure.message) == ("timeout", "timing took longer than 3 s")
    assert agent.children() == []


def test_the_stored_models_are_what_their_script_makes(tmp_path):
    subprocess.run([PYTHONS["litert"], str(MODELS / "make_models.py"), str(tmp_path)], check=True)
    made = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert made == {path.name: path.read_bytes() for path in MODELS.glob("*.tflite")}
