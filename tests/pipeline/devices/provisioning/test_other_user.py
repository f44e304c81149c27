"""An agent that runs as a user of its own: how a host that logs in as another reaches it and gives it files."""

import hashlib
import os
import pwd
import shutil
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from processes import wait_for

from device_agent.protocol import blob_path
from device_agent.sftp import SERVERS
from pipeline.agent_client import AgentClient, Blob
from pipeline.devices.inventory import Device, find_device
from pipeline.devices.provisioning.provision import AGENT_FOLDER
from pipeline.devices.ssh import attach_command, become, sftp_command, ssh_transport
from pipeline.errors import AgentMissing

OTHER = "nobody"
PYTHON = Path("/usr/bin/python3")

needs_root = pytest.mark.skipif(
    os.getuid() != 0 or not PYTHON.exists() or not any(map(os.path.exists, SERVERS)),
    reason=f"only root may become another user without being asked, who needs {PYTHON} and an sftp-server",
)
pytestmark = pytest.mark.sshd


def test_another_user_is_become_by_sudo_and_by_root_through_runuser():
    assert become("edgepress", "pi") == ("sudo", "-n", "-u", "edgepress", "--")
    assert become("edgepress", "root") == ("runuser", "-u", "edgepress", "--")


def test_the_commands_of_an_agent_of_another_user_begin_with_becoming_it():
    device = Device("pi4", "ssh", host="pi4", user="pi", agent="/opt/a", home="/var/lib/a", as_user="edgepress")
    become_it = ("sudo", "-n", "-u", "edgepress", "--", "/opt/a")
    assert attach_command(device) == (*become_it, "attach", "--home", "/var/lib/a", "--no-start")
    assert sftp_command(device) == (*become_it, "sftp")
    ours = replace(device, as_user=None)
    assert attach_command(ours) == ("/opt/a", "attach", "--home", "/var/lib/a")
    assert sftp_command(ours) == ()


def test_the_user_stands_in_the_devices_file(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEPRESS_DEVICES", str(tmp_path))
    (tmp_path / "pi4.yaml").write_text("host: pi4\nas_user: edgepress\n")
    assert find_device("pi4").as_user == "edgepress"


@pytest.fixture
def place():
    """A folder that others may look into, with the agent and its launcher."""
    folder = Path(tempfile.mkdtemp(prefix="edgepress-test-"))
    folder.chmod(0o755)
    shutil.copytree(AGENT_FOLDER, folder / "device_agent", ignore=shutil.ignore_patterns("__pycache__"))
    launcher = folder / "edgepress-agent"
    launcher.write_text(f'#!/bin/sh\ncd {folder} && exec {PYTHON} -B -m device_agent "$@"\n')
    launcher.chmod(0o755)
    home = folder / "home"
    home.mkdir(mode=0o700)
    os.chown(home, pwd.getpwnam(OTHER).pw_uid, -1)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def device(place, board):
    """The board, whose agent belongs to another user than the one who logs in."""
    (board.programs / "runuser").symlink_to(shutil.which("runuser", path="/usr/sbin:/sbin:/usr/bin"))
    command, home = str(place / "edgepress-agent"), str(place / "home")
    return replace(board.device(), agent=command, home=home, as_user=OTHER)


@pytest.fixture
def daemon(place):
    """The other user's agent."""
    runtimes = ["--runtime", "litert=/bin/false", "--runtime", "tflite_runtime=/bin/false"]
    words = [str(place / "edgepress-agent"), "serve", "--home", str(place / "home"), *runtimes]
    running = subprocess.Popen(["runuser", "-u", OTHER, "--", *words], stderr=subprocess.DEVNULL)
    wait_for(lambda: (place / "home" / "agent.sock").exists())
    yield
    running.terminate()
    running.wait(10)


@needs_root
def test_files_reach_an_agent_of_another_user_and_belong_to_it(device, daemon, tmp_path):
    content = os.urandom(100_000)
    (tmp_path / "blob").write_bytes(content)
    blob = Blob(hashlib.sha256(content).hexdigest(), tmp_path / "blob")
    with AgentClient(ssh_transport(device), device.name) as client:
        assert client.push([blob], lambda done, total: None) == len(content)
    kept = Path(blob_path(device.home, blob.sha256))
    assert kept.read_bytes() == content
    assert kept.owner() == OTHER
    assert kept.stat().st_mode & 0o077 == 0


@needs_root
def test_an_agent_of_another_user_that_does_not_run_is_not_started(device, place):
    with AgentClient(ssh_transport(device), device.name) as client, pytest.raises(AgentMissing) as told:
        client.status()
    assert f"no agent serves {place}/home, and none was to be started" in str(told.value)
    assert list((place / "home").iterdir()) == []
