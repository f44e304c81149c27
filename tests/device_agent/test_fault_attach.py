"""The host's own client while the process that it speaks through is killed again and again."""

import hashlib
import io
import json
import os
import random
import signal
import threading
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from agents import CALM, stop_agent, write_agent
from processes import processes_with, wait_for

from device_agent.protocol import DataSpec, JobSpec, LimitSpec, MeasureSpec, ModelSpec
from pipeline.agent_client import AgentClient, Blob
from pipeline.devices.inventory import Device
from pipeline.devices.transport import open_transport

MEASURE = MeasureSpec(processes=12, warmup_s=0, timing_s=0, min_invokes=8, max_invokes=8)
FEWEST_KILLS = 8


class Killer:
    """Kills whatever ``attach`` serves a home, at moments drawn from a seed, until it is stopped."""

    def __init__(self, home: Path, seed: int) -> None:
        self.kills = 0
        self._words = f"attach\0--home\0{home}"
        self._chance = random.Random(seed)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Killer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        # Where all is slow, only the longest pauses let it come so far as to be attached.
        while not self._stopped.wait(self._chance.uniform(0.02, self._chance.choice((0.3, 0.3, 0.3, 2.0)))):
            for pid in processes_with(self._words):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    self.kills += 1


@pytest.fixture
def client(tmp_path):
    device = Device("bench", "local", agent=str(write_agent(tmp_path)), home=str(tmp_path / "home"))
    with AgentClient(open_transport(device), device.name, wait=lambda seconds: None) as client:
        yield client
    stop_agent(tmp_path / "home")


def blob(folder: Path, content: bytes) -> Blob:
    sha256 = hashlib.sha256(content).hexdigest()
    (folder / sha256).write_bytes(content)
    return Blob(sha256, folder / sha256)


def array_blob(folder: Path, array) -> Blob:
    np.save(content := io.BytesIO(), array)
    return blob(folder, content.getvalue())


def quiet(*_: object) -> None:
    pass


def test_a_client_whose_attach_is_killed_again_and_again_gets_each_event_once(client, tmp_path):
    model = blob(tmp_path, json.dumps({"input_shape": [1, 4], "sleep_us": 20_000}).encode())
    inputs, labels = array_blob(tmp_path, np.eye(4, dtype=np.float32)), array_blob(tmp_path, np.arange(4))
    data = DataSpec(inputs.sha256, labels.sha256, 4)
    spec = JobSpec("a test", (ModelSpec("m", model.sha256, "null"),), data, "top1", MEASURE, LimitSpec(wall_s=60), CALM)
    client.acquire("a test")
    client.push([model, inputs, labels], quiet)
    job_id, events = client.submit(spec), []
    with Killer(tmp_path / "home", seed=3) as killer:
        assert client.follow(job_id, events.append) == "done"
    assert killer.kills >= FEWEST_KILLS
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert [event.stage for event in events] == ["start", *["timing"] * MEASURE.processes, "scoring", "finish"]
    [measured] = client.result(job_id).measurements
    assert [block.process for block in measured.blocks] == list(range(MEASURE.processes))
    client.acknowledge(job_id)
    assert client.status().jobs == ()
    client.close()
    wait_for(lambda: processes_with(f"attach\0--home\0{tmp_path / 'home'}") == [])
