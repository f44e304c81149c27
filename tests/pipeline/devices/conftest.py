"""A home of its own for every test, SSH servers to talk to, and an agent behind them."""

from __future__ import annotations

import os
import signal
from contextlib import suppress

import pytest
from boards import attach, device_on
from processes import processes_with
from ssh_server import SSHD, SshServer, make_key

from pipeline.devices.ssh import SshTransport
from pipeline.devices.ssh_config import ssh_target


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """An empty HOME, and an empty folder to stand in."""
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "SSH_AUTH_SOCK", "EDGEPRESS_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "home"
    (folder / ".ssh").mkdir(parents=True, mode=0o700)
    (tmp_path / "project").mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.chdir(tmp_path / "project")
    return folder


@pytest.fixture(scope="session")
def keys(tmp_path_factory):
    """Key pairs by name; making them once saves seconds."""
    folder = tmp_path_factory.mktemp("keys")
    made = {name: make_key(folder / name) for name in ("host_a", "host_b", "user", "stranger")}
    made["host_rsa"] = make_key(folder / "host_rsa", "rsa")
    made["locked"] = make_key(folder / "locked", "ed25519", "a secret")
    return made


@pytest.fixture
def start_sshd(tmp_path, keys):
    """A function that starts a server with the host keys of these names."""
    if not SSHD:
        pytest.skip("no OpenSSH server is installed")
    running = []

    def start(*host_keys):
        server = SshServer(tmp_path / f"sshd{len(running)}", [keys[name] for name in host_keys], keys["user"])
        server.start()
        running.append(server)
        return server

    yield start
    for server in running:
        server.stop()


@pytest.fixture
def sshd(start_sshd):
    """A server that nobody knows yet."""
    return start_sshd("host_a")


@pytest.fixture
def board(sshd, home):
    """A server as a device, whose key the user's known_hosts has."""
    (home / ".ssh" / "known_hosts").write_text(sshd.known_hosts_line)
    return device_on(sshd)


@pytest.fixture
def agent_home(tmp_path):
    """Where an agent lives; one that is started there ends with the test."""
    folder = tmp_path / "agent"
    yield folder
    for process in processes_with(str(folder)):
        # An attach ends by itself as soon as its daemon does.
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


@pytest.fixture
def ssh(board, agent_home):
    """The transport to a real agent through a real sshd."""
    transport = SshTransport(ssh_target(board), attach(agent_home))
    yield transport
    transport.close()
