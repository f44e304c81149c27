import os
import select
import time

import numpy as np
import pytest

from device_agent import blocks, protocol
from device_agent.protocol import MeasureSpec


def test_a_job_runs_from_submission_to_result(agent, host):
    spec = agent.spec(agent.null_model("echo"), agent.null_model("constant", output=[0.1, 0.9, 0.0, 0.0]))
    result = host.measure(spec)
    assert (result.state, result.failures) == ("done", ())
    assert [(m.model, m.score.value, m.score.samples) for m in result.measurements] == [
        ("echo", 1.0, 4),
        ("constant", 0.25, 4),
    ]
    assert result.device == host.hello.device
    assert result.started_utc <= result.finished_utc
    for measurement in result.measurements:
        assert (measurement.runtime, measurement.runtime_version, measurement.threads) == ("null", "1", 1)
        assert sorted(block.process for block in measurement.blocks) == [0, 1]


def test_raw_samples_are_in_files_whose_hashes_the_result_has(agent, host):
    result = host.measure(agent.spec(agent.null_model(invoke_us=200)))
    [measurement] = result.measurements
    files = {file.name: file for file in result.files}
    for block in measurement.blocks:
        invoke_ns = agent.array(result.job_id, block.file_name)
        assert (invoke_ns.dtype, len(invoke_ns)) == (np.int64, block.invokes)
        assert block.median_ns == int(np.median(invoke_ns)) >= 200_000
        assert min(block.load_ns, block.first_invoke_ns, block.peak_rss_bytes) > 0
    scores = agent.array(result.job_id, measurement.score.file_name)
    assert (scores.dtype, scores.tolist()) == (np.float32, [1, 1, 1, 1])
    for name, file in files.items():
        content = (agent.home / "jobs" / result.job_id / "files" / name).read_bytes()
        assert (file.size_bytes, file.sha256) == (len(content), agent.put_part(content))


def test_the_same_specification_is_the_same_job_until_it_is_acknowledged(agent, host):
    spec = agent.spec(agent.null_model())
    job_id = host.submit(spec)
    assert host.submit(spec) == job_id
    first = host.finish(job_id)
    assert host.call("job.submit", **host.submission(spec)) == {"job_id": job_id, "state": "done"}
    assert host.finish(job_id) == first
    assert host.call("job.acknowledge", job_id=job_id) == {}
    assert not (agent.home / "jobs" / job_id).exists()
    assert host.call("job.submit", **host.submission(spec)) == {"job_id": job_id, "state": "queued"}
    assert host.finish(job_id).state == "done"


def test_another_seed_is_another_job(agent, host):
    model, data = agent.null_model(), agent.data()
    specs = [agent.spec(model, data=data, measure=MeasureSpec(seed=seed)) for seed in (1, 2)]
    assert host.submit(specs[0]) != host.submit(specs[1])


def test_jobs_run_in_the_order_they_came(agent, host):
    first = host.submit(agent.spec(agent.null_model(invoke_us=100)))
    second = host.submit(agent.spec(agent.null_model(invoke_us=200)))
    assert [job["job_id"] for job in host.call("status")["jobs"]] == [first, second]
    results = [host.finish(second), host.finish(first)]
    assert results[1].finished_utc <= results[0].started_utc


def test_events_count_from_one_without_gaps_and_end_with_the_state(agent, host):
    job_id = host.submit(agent.spec(agent.null_model("a"), agent.null_model("b", output=[1, 0, 0, 0])))
    *events, state = host.events(job_id)
    assert state == "done"
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    stages = [event["stage"] for event in events]
    assert stages == ["start"] + ["timing"] * 4 + ["scoring"] * 2 + ["finish"]
    assert [event["done"] for event in events] == [0, 1, 2, 3, 4, 5, 6, 6]
    assert {event["total"] for event in events} == {6}
    assert {event["model"] for event in events[1:5]} == {"a", "b"}


def test_a_host_that_comes_back_follows_from_where_it_was(agent, host):
    job_id = host.submit(agent.spec(agent.null_model()))
    first = agent.host()
    events = first.events(job_id)
    assert [next(events)["seq"], next(events)["seq"]] == [1, 2]
    first.close()
    assert [event["seq"] for event in list(host.events(job_id, after=2))[:-1]] == [3, 4, 5]
    assert list(host.events(job_id, after=5)) == ["done"]


def test_a_job_that_is_not_finished_has_no_result_and_cannot_be_acknowledged(agent, host, rpc_error):
    job_id = host.submit(agent.spec(agent.null_model(fault="hang")))
    for method in ("job.result", "job.acknowledge"):
        with rpc_error(protocol.NOT_FINISHED, f"job {job_id} is (queued|running); follow it to its end or cancel it"):
            host.call(method, job_id=job_id)


def test_a_queued_job_is_cancelled_at_once(agent, host):
    host.submit(agent.spec(agent.null_model(fault="hang")))
    queued = host.submit(agent.spec(agent.null_model()))
    assert host.call("job.cancel", job_id=queued) == {"state": "cancelled"}
    assert list(host.events(queued))[-1] == "cancelled"
    result = host.finish(queued)
    assert (result.state, result.measurements, result.failures) == ("cancelled", (), ())


def test_a_running_job_is_cancelled_within_two_seconds_with_its_child(agent, host):
    job_id = host.submit(agent.spec(agent.null_model("quick"), agent.null_model("hanging", fault="hang")))
    next(agent.host().events(job_id))
    begin = time.monotonic()
    assert host.call("job.cancel", job_id=job_id) == {"state": "cancelled"}
    assert time.monotonic() - begin < 2
    assert agent.children() == []
    assert host.call("job.cancel", job_id=job_id) == {"state": "cancelled"}


def test_a_job_that_was_cancelled_leaves_the_queue_running(agent, host):
    job_id = host.submit(agent.spec(agent.null_model(fault="hang")))
    host.call("job.cancel", job_id=job_id)
    assert host.measure(agent.spec(agent.null_model())).state == "done"


def test_a_result_survives_the_daemon(make_agent):
    agent = make_agent()
    result = agent.host().measure(agent.spec(agent.null_model()))
    agent.kill()
    agent.start()
    assert agent.host().finish(result.job_id) == result


def test_a_job_whose_daemon_was_killed_is_finished_by_the_next_and_no_block_runs_twice(make_agent):
    agent = make_agent()
    model = agent.null_model(invoke_us=1000)
    measure = MeasureSpec(processes=4, warmup_s=0, timing_s=0, min_invokes=100)
    host = agent.host()
    job_id = host.submit(agent.spec(model, measure=measure))
    events = host.events(job_id)
    before = [next(events) for _ in range(3)]
    folder = agent.home / "jobs" / job_id / "blocks"
    finished = {event["done"] - 1: (folder / f"timing-0-{event['done'] - 1}.json").stat() for event in before[1:]}
    agent.kill()
    agent.start()
    host = agent.host()
    *after, state = host.events(job_id, after=3)
    assert state == "done"
    assert [event["seq"] for event in before + after] == list(range(1, len(before + after) + 1))
    for process, stat in finished.items():
        again = (folder / f"timing-0-{process}.json").stat()
        assert (again.st_ino, again.st_mtime_ns) == (stat.st_ino, stat.st_mtime_ns)
    [measurement] = host.finish(job_id).measurements
    assert [block.process for block in measurement.blocks] == [0, 1, 2, 3]


def test_a_child_ends_with_its_daemon(agent, host):
    host.submit(agent.spec(agent.null_model(fault="hang")))
    descriptor = os.pidfd_open(agent.running_child())
    agent.kill()
    assert select.select([descriptor], [], [], 5)[0]
    os.close(descriptor)


def test_a_torn_line_of_events_is_forgotten(make_agent):
    agent = make_agent()
    host = agent.host()
    job_id = host.submit(agent.spec(agent.null_model(invoke_us=1000), measure=MeasureSpec(processes=3, timing_s=0.1)))
    next(host.events(job_id))
    agent.kill()
    with (agent.home / "jobs" / job_id / "events.jsonl").open("ab") as file:
        file.write(b'{"job_id": "to')
    agent.start()
    *events, state = agent.host().events(job_id)
    assert state == "done"
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))


def test_a_folder_that_is_no_job_is_left_alone(make_agent, tmp_path):
    (tmp_path / "home" / "jobs" / "notes").mkdir(parents=True)
    broken = tmp_path / "home" / "jobs" / ("a" * 16)
    broken.mkdir()
    (broken / "state.json").write_text("{}")
    agent = make_agent()
    assert agent.host().call("status")["jobs"] == []
    assert agent.log().count("is not a job and left alone") == 2
    assert broken.is_dir()


def test_an_empty_block_result_is_refused():
    with pytest.raises(protocol.ProtocolError, match="a block's result is empty"):
        blocks.outcome_from_bytes(b"{}")
