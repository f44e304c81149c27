"""Each fault is a real one: a signal, a limit of the kernel, a full file system."""

import re
from pathlib import Path

import numpy as np
import pytest

from device_agent import protocol
from device_agent.protocol import LimitSpec, MeasureSpec, ModelSpec

FAULTS = {
    "segfault": ("crash", "timing ended with SIGSEGV", "Segmentation fault"),
    "abort": ("crash", "timing ended with SIGABRT", "Aborted"),
    "kill": ("crash", "ended with SIGKILL, as the kernel sends when memory runs out", ""),
    "exit": ("crash", "timing ended with exit status 3 and no result", ""),
    "raise": ("invoke", "the model was told to raise", ""),
    "nan": ("invoke", "output is not finite for sample 0", ""),
    "disk": ("disk", "bytes are free; make room there", ""),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_a_failure_of_its_model_and_the_others_go_on(agent, host, fault):
    result = host.measure(agent.spec(agent.null_model("bad", fault=fault), agent.null_model("good")))
    kind, message, detail = FAULTS[fault]
    [failure] = result.failures
    assert (failure.model, failure.kind) == ("bad", kind)
    assert message in failure.message
    assert detail in failure.detail
    assert [measurement.model for measurement in result.measurements] == ["good"]


def test_a_model_that_does_not_load_says_why(agent, host):
    model = ModelSpec("text", agent.push(b"this is no JSON"), "null")
    [failure] = host.measure(agent.spec(model)).failures
    assert (failure.kind, failure.message) == ("load", "Expecting value: line 1 column 1 (char 0)")


def test_a_crash_while_loading_is_a_failure(agent, host):
    [failure] = host.measure(agent.spec(agent.null_model(fault="segfault", fault_at="load"))).failures
    assert (failure.kind, failure.message) == ("crash", "timing ended with SIGSEGV")


def test_a_hang_is_ended_at_the_wall_limit(agent, host):
    spec = agent.spec(agent.null_model("bad", fault="hang"), agent.null_model("good"), limits=LimitSpec(wall_s=5))
    result = host.measure(spec)
    [failure] = result.failures
    assert (failure.model, failure.kind, failure.message) == ("bad", "timeout", "timing took longer than 5 s")
    assert [measurement.model for measurement in result.measurements] == ["good"]


@pytest.mark.parametrize("fault", ["memory", "kill"])
def test_a_memory_limit_is_kept(agent, host, fault):
    limits = LimitSpec(wall_s=60, memory_mib=256)
    result = host.measure(agent.spec(agent.null_model("bad", fault=fault), agent.null_model("good"), limits=limits))
    [failure] = result.failures
    assert (failure.model, failure.kind) == ("bad", "memory")
    assert failure.message == "more memory was needed than the limit of 256 MiB"
    assert [measurement.model for measurement in result.measurements] == ["good"]


@pytest.mark.parametrize("memory_mib", [4, 12, 30])
def test_a_memory_limit_that_the_runtime_itself_does_not_fit_in_is_told_as_such(agent, host, memory_mib):
    limits = LimitSpec(wall_s=60, memory_mib=memory_mib)
    [failure] = host.measure(agent.spec(agent.null_model(), limits=limits)).failures
    assert failure.kind == "memory", failure
    assert failure.message == f"more memory was needed than the limit of {memory_mib} MiB"


def test_data_larger_than_the_memory_limit_is_scored_since_it_is_only_mapped(agent, host):
    images = np.zeros((512, 1 << 18), np.uint8)
    model = agent.null_model(input_shape=[1, 1 << 18], output=[1, 0, 0, 0])
    data = agent.data(images, np.zeros(len(images), int))
    limit_mib = 96
    assert images.nbytes > limit_mib << 20
    result = host.measure(agent.spec(model, data=data, limits=LimitSpec(wall_s=60, memory_mib=limit_mib)))
    [measured] = result.measurements
    assert (measured.score.value, measured.score.samples) == (1.0, 512)


def test_a_model_that_has_failed_is_not_tried_again(agent, host):
    job_id = host.submit(agent.spec(agent.null_model(fault="exit"), measure=MeasureSpec(processes=5)))
    *events, _ = host.events(job_id)
    assert [event["stage"] for event in events] == ["start", "timing", "finish"]


def test_a_metric_that_does_not_fit_is_known_after_the_first_invoke(agent, host):
    result = host.measure(agent.spec(agent.null_model(), metric="top5"))
    [failure] = result.failures
    assert failure.kind == "metric"
    assert failure.message == "top5 got outputs [1, 4] and labels [1]; expected at least 5 classes"
    assert result.files == ()


def test_an_unknown_metric_lists_those_that_exist(agent, host):
    [failure] = host.measure(agent.spec(agent.null_model(), metric="top9")).failures
    assert (failure.kind, failure.message) == ("metric", 'unknown metric "top9"; known: top1, top5')


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"inputs": np.zeros((4, 5), np.float32)}, r"model input has the shape \[1, 4\], a sample \[5\]; expected .*"),
        ({"samples": 5}, r"inputs have the shape \[4, 4\]; expected at least 5 samples"),
        ({"labels": np.arange(3)}, r"labels have the shape \[3\]; expected at least 4 samples"),
        ({"labels": np.array([None] * 4)}, "Array can't be memory-mapped: Python objects in dtype."),
    ],
)
def test_data_that_the_model_cannot_be_given_is_a_failure(agent, host, data, message):
    [failure] = host.measure(agent.spec(agent.null_model(), data=agent.data(**data))).failures
    assert failure.kind == "data"
    assert re.fullmatch(message, failure.message)


@pytest.mark.parametrize(
    ("runtime", "message"),
    [
        ("litert", "litert cannot be used: /bin/false: ended with 1"),
        ("tensorrt", 'tensorrt cannot be used: unknown runtime "tensorrt"; known: litert, null, tflite_runtime'),
    ],
)
def test_a_runtime_that_cannot_be_used_is_a_failure(agent, host, runtime, message):
    model = agent.null_model()
    bad = ModelSpec("bad", model.sha256, runtime)
    result = host.measure(agent.spec(bad, model))
    [failure] = result.failures
    assert (failure.kind, failure.message) == ("runtime", message)
    assert [measurement.model for measurement in result.measurements] == ["model"]


def fill(home: Path) -> Path:
    filler = home / "filler"
    with pytest.raises(OSError, match="No space left"), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    return filler


def test_a_full_disk_refuses_a_job_and_leaves_nothing_half_written(small_disk, make_agent, rpc_error):
    agent = make_agent(small_disk)
    host, spec = agent.host(), agent.spec(agent.null_model())
    filler = fill(small_disk)
    with rpc_error(protocol.DISK_FULL, f"no space left for {small_disk}: 0 bytes are free; make room there"):
        host.submit(spec)
    assert list((small_disk / "jobs").iterdir()) == []
    filler.unlink()
    assert host.measure(spec).state == "done"


def test_a_disk_that_fills_up_during_a_job_is_a_failure_of_it_and_the_daemon_lives(small_disk, make_agent):
    agent = make_agent(small_disk)
    host = agent.host()
    spec = agent.spec(agent.null_model(invoke_us=1000), measure=MeasureSpec(processes=3, warmup_s=0.2, timing_s=1.0))
    job_id = host.submit(spec)
    events = host.events(job_id)
    assert [next(events)["stage"], next(events)["stage"]] == ["start", "timing"]
    filler = fill(small_disk)
    list(events)
    result = host.finish(job_id)
    assert result.measurements == ()
    assert [failure.kind for failure in result.failures] == ["disk"]
    assert "no space left" in result.failures[0].message.lower()
    filler.unlink()
    host.call("job.acknowledge", job_id=job_id)
    assert host.measure(spec).state == "done"


def test_what_was_measured_before_the_disk_was_full_is_not_measured_again_after_a_restart(small_disk, make_agent):
    agent = make_agent(small_disk)
    host = agent.host()
    measure = MeasureSpec(processes=3, warmup_s=0.2, timing_s=0.2)
    job_id = host.submit(agent.spec(agent.null_model(invoke_us=1000), measure=measure))
    events = host.events(job_id)
    assert [next(events)["stage"], next(events)["stage"]] == ["start", "timing"]
    kept = small_disk / "jobs" / job_id / "blocks" / "timing-0-0.json"
    before = kept.stat()
    filler = fill(small_disk)
    list(events)
    agent.kill()
    filler.unlink()
    agent.start()
    assert agent.host().finish(job_id).state == "done"
    assert (kept.stat().st_ino, kept.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
