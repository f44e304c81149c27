"""A daemon under a service manager: it says when it is ready, and stands by while another serves its home."""

import os
import signal
import socket
import subprocess
import sys

import pytest
from processes import wait_for

from device_agent.attach import NOT_RUNNING
from device_agent.installing.running import end_daemon, use_of


@pytest.fixture
def notified(tmp_path):
    """The socket of a service manager."""
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(path))
        listening.settimeout(30)
        yield listening


@pytest.fixture
def serve(tmp_path, notified):
    """A function that starts a daemon as a unit does."""
    running = []

    def start(*words):
        command = [sys.executable, "-m", "device_agent", "serve", "--home", str(tmp_path / "home"), *words]
        environment = {**os.environ, "NOTIFY_SOCKET": notified.getsockname()}
        running.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
        return running[-1]

    yield start
    for process in running:
        process.kill()
        process.communicate()


def connects(home):
    with socket.socket(socket.AF_UNIX) as connected:
        return connected.connect_ex(str(home / "agent.sock")) == 0


def test_a_daemon_says_that_it_is_ready_once_it_can_be_connected_to(serve, notified, tmp_path):
    serve()
    assert notified.recv(100) == b"READY=1"
    assert connects(tmp_path / "home")


def test_one_that_stands_by_is_ready_at_once_and_serves_when_the_other_has_ended(serve, notified, tmp_path):
    first = serve()
    notified.recv(100)
    second = serve("--stand-by")
    assert notified.recv(100) == b"READY=1"
    assert "already; standing by" in second.stderr.readline()
    first.send_signal(signal.SIGTERM)
    assert first.wait(20) == 0
    assert notified.recv(100) == b"READY=1"
    assert connects(tmp_path / "home")
    assert second.poll() is None


def test_one_that_does_not_stand_by_ends_with_who_serves(serve, notified):
    first = serve()
    notified.recv(100)
    second = serve()
    assert second.wait(20) == 1
    assert f"another agent (process {first.pid}) serves" in second.stderr.read()


def test_attach_without_start_says_that_none_runs_and_starts_none(tmp_path):
    command = [sys.executable, "-m", "device_agent", "attach", "--no-start", "--home", str(tmp_path / "home")]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (NOT_RUNNING, "")
    assert done.stderr == f"no agent serves {tmp_path}/home, and none was to be started\n"
    assert not (tmp_path / "home").exists()


def test_an_installer_ends_the_daemon_of_a_home_and_of_no_other(make_agent, tmp_path):
    ours, other = make_agent(), make_agent(tmp_path / "other")
    assert end_daemon(ours.home)
    assert ours.process.wait(20) == 0
    assert other.process.poll() is None
    assert not end_daemon(ours.home)
    assert not end_daemon(tmp_path / "no-such-home")


def test_a_daemon_that_ignores_its_end_is_killed(make_agent, tmp_path, monkeypatch):
    monkeypatch.setattr("device_agent.installing.running._PATIENCE_S", 0.5)
    agent = make_agent()
    agent.process.send_signal(signal.SIGSTOP)
    assert end_daemon(agent.home)
    assert agent.process.wait(20) == -signal.SIGKILL


def test_an_agent_is_in_use_while_it_is_leased_or_has_a_job(make_agent, tmp_path):
    agent = make_agent()
    assert use_of(agent.home) is None
    assert use_of(tmp_path / "no-such-home") is None
    host = agent.host()
    host.lease("ana@laptop, run x")
    assert use_of(agent.home).startswith("ana@laptop, run x has leased it since 20")
    job_id = host.submit(agent.spec(agent.null_model(invoke_us=50_000)))
    wait_for(lambda: use_of(agent.home) == f"job {job_id} is running")
    host.call("job.cancel", job_id=job_id)
