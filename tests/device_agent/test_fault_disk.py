"""A real file system that is full at one step of a job or another, and has room again later."""

import os
from pathlib import Path

import pytest

from device_agent.protocol import JobResult, MeasureSpec

pytestmark = pytest.mark.usefixtures("untraced")

PAGE_BYTES = 4096
MEASURE = MeasureSpec(processes=2, warmup_s=0, timing_s=0, min_invokes=8, max_invokes=8)


def leave_free(home: Path, pages: int) -> Path:
    """Fill the disk but for some pages, in which a small file each has room; return what to remove later."""
    filler = home / "filler"
    with pytest.raises(OSError, match="No space left"), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(PAGE_BYTES))
    os.truncate(filler, filler.stat().st_size - pages * PAGE_BYTES)
    return filler


def assert_complete(result: JobResult) -> None:
    assert (result.state, result.failures) == ("done", ())
    [measured] = result.measurements
    assert sorted(block.process for block in measured.blocks) == [0, 1]
    assert len(result.files) == 3


# With none the next block's request has no room, with nine the result has: every step between is hit on the way.
@pytest.mark.parametrize("pages", range(10))
def test_a_disk_that_is_full_at_any_step_ends_the_job_in_order_and_with_room_it_ends_well(
    small_disk, make_agent, pages
):
    agent = make_agent(small_disk)
    # With none, all of it is to be full before the job has come to its end.
    model = agent.null_model(sleep_us=0 if pages else 200_000)
    host, spec = agent.host(), agent.spec(model, measure=MEASURE)
    job_id = host.submit(spec)
    events = host.events(job_id)
    assert [next(events)["stage"], next(events)["stage"]] == ["start", "timing"]
    filler = leave_free(small_disk, pages)
    list(events)
    result = host.finish(job_id)
    if pages and not result.failures:
        assert_complete(result)
    else:
        assert ([failure.kind for failure in result.failures], result.measurements) == (["disk"], ())
    filler.unlink()
    assert agent.process.poll() is None
    host.call("job.acknowledge", job_id=job_id)
    assert_complete(host.measure(spec))


@pytest.mark.parametrize("pages", [0, 3, 6, 7])
def test_a_job_whose_daemon_is_killed_on_a_full_disk_is_done_when_there_is_room_or_failed_before(
    small_disk, make_agent, pages
):
    agent = make_agent(small_disk)
    host = agent.host()
    job_id = host.submit(agent.spec(agent.null_model(), measure=MEASURE))
    events = host.events(job_id)
    assert [next(events)["stage"], next(events)["stage"]] == ["start", "timing"]
    filler = leave_free(small_disk, pages)
    list(events)
    agent.kill()
    filler.unlink()
    agent.start()
    result = agent.host().finish(job_id)
    if pages and result.failures:  # there was room to write down, before the kill, that there was none for the job
        assert ([failure.kind for failure in result.failures], result.measurements) == (["disk"], ())
    else:
        assert_complete(result)


def test_a_daemon_starts_on_a_full_disk_and_an_acknowledged_job_makes_room(small_disk, make_agent):
    agent = make_agent(small_disk)
    job_id = agent.host().measure(agent.spec(agent.null_model(), measure=MEASURE)).job_id
    agent.kill()
    (small_disk / "agent.lock").unlink()
    leave_free(small_disk, 0)
    agent.start()
    host = agent.host()
    assert host.hello.free_bytes == 0
    assert host.finish(job_id).state == "done"
    host.call("job.acknowledge", job_id=job_id)
    assert host.call("status")["free_bytes"] > 0
