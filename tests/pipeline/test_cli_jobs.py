"""``edgepress attach`` and ``edgepress cancel`` on the real agent, through the real command line."""

import hashlib
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from agents import CALM, CALM_YAML, stop_agent, write_agent

from device_agent.protocol import DataSpec, JobSpec, LimitSpec, MeasureSpec, ModelSpec
from pipeline.agent_client import AgentClient, Blob
from pipeline.devices.inventory import Device
from pipeline.devices.transport import open_transport

EDGEPRESS = str(Path(sys.executable).with_name("edgepress"))
QUICK = MeasureSpec(processes=2, warmup_s=0.0, timing_s=0.0, min_invokes=8, max_invokes=8)


class Bench:
    """A device called bench, a host of it, and the command line."""

    def __init__(self, folder: Path, client: AgentClient) -> None:
        self.folder, self.client = folder, client

    def command(self, *arguments: str) -> subprocess.Popen[str]:
        environment = {**os.environ, "EDGEPRESS_DEVICES": str(self.folder / "devices"), "HOME": str(self.folder)}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(
            [EDGEPRESS, *arguments, "--device", "bench"], cwd=self.folder, env=environment, text=True, **pipes
        )

    def edgepress(self, *arguments: str) -> tuple[int, str, str]:
        running = self.command(*arguments)
        out, err = running.communicate(timeout=60)
        return running.returncode, out, err

    def blob(self, content: bytes) -> Blob:
        sha256 = hashlib.sha256(content).hexdigest()
        (self.folder / sha256).write_bytes(content)
        return Blob(sha256, self.folder / sha256)

    def submit(self, *models: dict) -> str:
        """Hand in a job of these stand-in models, called a, b, …"""
        arrays = []
        for array in (np.eye(4, dtype=np.float32), np.arange(4)):
            np.save(content := io.BytesIO(), array)
            arrays.append(self.blob(content.getvalue()))
        blobs = [self.blob(json.dumps({"input_shape": [1, 4], **model}).encode()) for model in models]
        named = tuple(ModelSpec(name, blob.sha256, "null") for name, blob in zip("abc", blobs, strict=False))
        data = DataSpec(arrays[0].sha256, arrays[1].sha256, 4)
        self.client.acquire("ana@laptop, run tiny")
        self.client.push([*blobs, *arrays], lambda done, total: None)
        return self.client.submit(JobSpec("tiny", named, data, "top1", QUICK, LimitSpec(wall_s=60), CALM))


@pytest.fixture
def bench(tmp_path):
    agent, home = write_agent(tmp_path), tmp_path / "agent-home"
    (tmp_path / "devices").mkdir()
    (tmp_path / "devices" / "bench.yaml").write_text(f"transport: local\nagent: {agent}\nhome: {home}\n{CALM_YAML}")
    device = Device("bench", "local", agent=str(agent), home=str(home))
    with AgentClient(open_transport(device), "bench") as client:
        yield Bench(tmp_path, client)
    stop_agent(home)


def test_attach_follows_a_job_to_its_end_and_says_how_to_get_the_report(bench):
    job_id = bench.submit({}, {"fault": "raise"})
    code, out, err = bench.edgepress("attach", job_id)
    assert (code, err) == (0, "")
    assert "measure tiny: started\n" in out
    assert f"job {job_id} (tiny) is done: 1 measured, 1 failed\n" in out
    assert "b: invoke: the model was told to raise\n" in out
    assert 'run the experiment again: "edgepress run" takes the job over' in out
    assert bench.client.result(job_id).state == "done"


def test_attach_ends_with_exit_code_1_when_another_cancels_the_job(bench):
    job_id = bench.submit({"fault": "hang"})
    attached = bench.command("attach", job_id)
    assert attached.stdout.readline() == "measure tiny: started\n"
    code, out, err = bench.edgepress("cancel", job_id)
    assert (code, out, err) == (0, f"job {job_id} is cancelled\n", "")
    out, err = attached.communicate(timeout=60)
    assert (attached.returncode, err) == (1, "")
    assert f"job {job_id} (tiny) is cancelled: 0 measured\n" in out


def test_cancel_leaves_a_finished_job_what_it_was(bench):
    job_id = bench.submit({})
    bench.client.follow(job_id, lambda event: None)
    assert bench.edgepress("cancel", job_id) == (0, f"job {job_id} is done\n", "")


@pytest.mark.parametrize("command", ["attach", "cancel"])
def test_an_unknown_job_lists_those_of_the_device(bench, command):
    said = 'edgepress: unknown job "abc" on bench; jobs there: '
    assert bench.edgepress(command, "abc") == (2, "", f"{said}none\n")
    job_id = bench.submit({"fault": "hang"})
    code, _, err = bench.edgepress(command, "abc")
    assert code == 2
    assert re.fullmatch(rf"{re.escape(said)}{job_id} (queued|running) tiny\n", err)
