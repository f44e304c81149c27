"""Two hosts and one device through the real command line: refused, waiting, interrupted while waiting."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from processes import heed_ctrl_c

from pipeline.agent_client import AgentClient
from pipeline.devices.inventory import Device
from pipeline.devices.transport import open_transport

pytestmark = pytest.mark.tensorflow


@pytest.fixture
def other_host(bench):
    """Another host, which has leased the device that the command line calls local."""
    agent = str(Path(sys.prefix).parent / "litert" / "bin" / "edgepress-agent")
    home = str(bench.home / ".local" / "share" / "edgepress" / "agent")
    with AgentClient(open_transport(Device("local", "local", agent=agent, home=home)), "local") as client:
        client.acquire("ana@laptop, run x")
        yield client


def start_waiting(bench) -> subprocess.Popen[str]:
    """Start a run and return it once it waits for the device."""
    command = bench.command("run", bench.experiment("ready.tflite"), "--wait")
    running = subprocess.Popen(
        command,
        preexec_fn=heed_ctrl_c,
        cwd=bench.folder,
        env=bench.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    said = next((line for line in running.stdout if line.startswith("waiting")), "")
    assert said.startswith("waiting for local: held by ana@laptop, run x since 20"), running.communicate()
    return running


def test_a_run_is_refused_with_one_message_while_another_has_the_device(bench, other_host):
    done = bench.edgepress("run", bench.experiment("ready.tflite"))
    assert done.returncode == 1
    assert "edgepress: local: the device is leased by ana@laptop, run x since " in done.stderr
    assert done.stderr.strip().endswith("or use --wait")
    assert "Traceback" not in done.stderr
    assert other_host.status().jobs == ()


def test_a_run_that_waits_measures_as_soon_as_the_device_is_free(bench, other_host):
    running = start_waiting(bench)
    other_host.release()
    out, err = running.communicate(timeout=120)
    assert running.returncode == 0, out + err
    assert "it is free" in out
    assert all(variant["valid"] for variant in bench.record()["variants"])
    assert other_host.status().lease is None


def test_ctrl_c_ends_a_run_that_waits_and_its_place_in_the_queue(bench, other_host):
    running = start_waiting(bench)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=30)
    assert running.returncode == 130
    assert "Traceback" not in err
    other_host.release()
    assert other_host.status().lease is None
