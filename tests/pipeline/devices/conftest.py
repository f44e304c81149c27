"""A home of its own for every test, and SSH servers to talk to."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from ssh_server import SSHD, SshServer, make_key

from pipeline.devices.inventory import Device


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
    names = ("host_a", "host_b", "user", "stranger")
    made = {name: make_key(folder / name) for name in names}
    made["host_rsa"] = make_key(folder / "host_rsa", "rsa")
    made["locked"] = make_key(folder / "locked", passphrase="secret")
    return made


@pytest.fixture(scope="session")
def _one_sshd(tmp_path_factory, keys):
    if not SSHD:
        pytest.skip("no sshd on this machine: install openssh-server")
    with SshServer(tmp_path_factory.mktemp("sshd"), [keys["host_a"]], keys["user"]) as server:
        yield server


@pytest.fixture
def sshd(_one_sshd):
    """A server that all tests share; no connection of an earlier test is left on it."""
    _one_sshd.cut_connections()
    return _one_sshd


@pytest.fixture
def start_sshd(tmp_path, keys):
    """A function that starts a further server with the host keys of these names."""
    if not SSHD:
        pytest.skip("no sshd on this machine: install openssh-server")
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
def board(sshd, home):
    """The shared server as a device whose key the user knows already."""
    (home / ".ssh" / "known_hosts").write_text(sshd.known_hosts_line)
    return device_on(sshd)


def device_on(server, **changes):
    """Return ``server`` as a device, reached by its address and the user's key."""
    values = {"host": server.host, "port": server.port, "user": server.user, "identity_file": server.user_key}
    return Device("pi4", "ssh", **{**values, **changes})
