"""kill -9 of the daemon, at any moment: the next one finishes the job, and nothing is lost or there twice."""

import hashlib
import os
import random
import select
import time
from collections import Counter
from pathlib import Path

import pytest
from processes import processes_with, wait_for

from device_agent import protocol
from device_agent.protocol import MeasureSpec

pytestmark = pytest.mark.usefixtures("untraced")

# Six kills each: 54 of them.
SEEDS = range(9)
PHASES = ("submit", "start", "timing", "scoring", "finish", "acknowledge")
PROCESSES = 2
MEASURE = MeasureSpec(processes=PROCESSES, warmup_s=0, timing_s=0.02, min_invokes=8)
# How long after the beginning of a phase the kill may come, in seconds.
LONGEST_PAUSE_S = {"submit": 0.01, "start": 0.2, "timing": 0.3, "scoring": 0.2, "finish": 0.02, "acknowledge": 0.01}


class Story:
    """One job, its daemon, and what a host has been told so far."""

    def __init__(self, agent, seed: int) -> None:
        self.agent = agent
        self.host = agent.host()
        self.chance = random.Random(seed)
        models = agent.null_model("a", invoke_us=500), agent.null_model("b", invoke_us=500, output=[1, 0, 0, 0])
        self.spec = agent.spec(*models, measure=MEASURE)
        self.events = []

    def kill_and_restart(self, phase: str) -> None:
        time.sleep(self.chance.uniform(0, LONGEST_PAUSE_S[phase]))
        children = [os.pidfd_open(pid) for pid in self.agent.children() if Path(f"/proc/{pid}").exists()]
        self.agent.kill()
        for child in children:
            assert select.select([child], [], [], 5)[0], "a child has outlived its daemon"
            os.close(child)
        self.agent.start()
        self.host = self.agent.host()

    def jobs(self) -> dict[str, str]:
        return {job["job_id"]: job["state"] for job in self.host.call("status")["jobs"]}

    def follow(self, job_id: str, stop=lambda event: False) -> None:
        """Collect events until the job ends or comes to where to ``stop``; those known already must be the same."""
        told = self.host.events(job_id)
        for place, event in enumerate(told):
            if not isinstance(event, dict):
                return
            if place < len(self.events):
                assert event == self.events[place]
            else:
                self.events.append(event)
            if place >= len(self.events) - 1 and stop(event):
                return


@pytest.fixture(params=SEEDS)
def story(make_agent, request) -> Story:
    return Story(make_agent(), request.param)


def test_a_job_outlives_a_daemon_that_is_killed_in_each_of_its_phases(story):
    story.host.ask("job.submit", **story.host.submission(story.spec))
    story.kill_and_restart("submit")
    assert set(story.jobs().values()) <= {"queued", "running", "done"}
    job_id = story.host.submit(story.spec)
    story.kill_and_restart("start")
    for phase in ("timing", "scoring", "finish"):
        assert_not_lost(story, job_id)
        story.follow(job_id, stop=lambda event, phase=phase: has_come_to(event, phase))
        story.kill_and_restart(phase)
    assert_not_lost(story, job_id)
    story.follow(job_id)
    assert_all_is_there_once(story, job_id)
    story.host.ask("job.acknowledge", job_id=job_id)
    story.kill_and_restart("acknowledge")
    if story.jobs():
        assert story.jobs() == {job_id: "done"}
        story.host.call("job.acknowledge", job_id=job_id)
    assert list((story.agent.home / "jobs").iterdir()) == []
    assert_only_the_daemon_lives(story.agent)


def has_come_to(event: dict, phase: str) -> bool:
    if phase == "finish":
        return event["done"] == event["total"]
    return event["stage"] in (phase, "finish")


def assert_not_lost(story: Story, job_id: str) -> None:
    [(found, state)] = story.jobs().items()
    assert found == job_id
    assert state in ("queued", "running", "done")


def assert_all_is_there_once(story: Story, job_id: str) -> None:
    result = protocol.from_json(protocol.JobResult, story.host.call("job.result", job_id=job_id))
    assert (result.state, result.failures) == ("done", ())
    assert [(measured.model, measured.score.value) for measured in result.measurements] == [("a", 1.0), ("b", 0.25)]
    named = [measured.score.file_name for measured in result.measurements]
    for measured in result.measurements:
        assert sorted(block.process for block in measured.blocks) == list(range(PROCESSES))
        named += [block.file_name for block in measured.blocks]
    assert sorted(named) == sorted(file.name for file in result.files)
    assert len(set(named)) == len(named) == 2 * (PROCESSES + 1)
    for file in result.files:
        content = (story.agent.home / "jobs" / job_id / "files" / file.name).read_bytes()
        assert (file.size_bytes, file.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert [event["seq"] for event in story.events] == list(range(1, len(story.events) + 1))
    stages = Counter((event["stage"], event["model"]) for event in story.events)
    blocks = {("timing", "a"): PROCESSES, ("timing", "b"): PROCESSES, ("scoring", "a"): 1, ("scoring", "b"): 1}
    assert stages == {("start", ""): 1, **blocks, ("finish", ""): 1}


def assert_only_the_daemon_lives(agent) -> None:
    wait_for(lambda: processes_with(str(agent.home)) == [agent.process.pid], deadline_s=10)
