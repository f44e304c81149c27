"""What leaves this machine and what is told: nothing that lets anybody in."""

import base64
import os
import subprocess
from dataclasses import replace

import pytest

from pipeline.devices.ssh import SshTransport
from pipeline.devices.ssh_config import ssh_target
from pipeline.errors import AuthenticationRefused

pytestmark = pytest.mark.sshd


@pytest.fixture
def running_ssh_agent(tmp_path_factory, keys, monkeypatch):
    """An ssh-agent that holds the user's key."""
    where = tmp_path_factory.mktemp("agent") / "s"
    with subprocess.Popen(["ssh-agent", "-D", "-a", str(where)], stdout=subprocess.PIPE) as agent:
        agent.stdout.readline()
        monkeypatch.setenv("SSH_AUTH_SOCK", str(where))
        subprocess.run(["ssh-add", "-q", str(keys["user"])], check=True)
        yield where
        agent.terminate()


def environment_there(board, tmp_path) -> str:
    """Return the environment that the far end gives to what we start there."""
    script = tmp_path / "show"
    script.write_text("#!/bin/sh\necho $(env)\n")
    script.chmod(0o755)
    transport = SshTransport(ssh_target(board), (str(script),))
    try:
        return transport.open_stream().read_line(10).decode()
    finally:
        transport.close()


def forwarded_by_ssh(board, home) -> str:
    """Return the environment there when OpenSSH's own client is told to forward the agent."""
    known = f"UserKnownHostsFile={home}/.ssh/known_hosts"
    there = ["-p", str(board.port), f"{board.user}@{board.host}", "env"]
    return subprocess.run(["ssh", "-A", "-F", "none", "-o", known, *there], capture_output=True, text=True).stdout


def test_the_ssh_agent_of_this_machine_is_not_forwarded_to_the_board(board, running_ssh_agent, tmp_path, home):
    assert os.environ["SSH_AUTH_SOCK"] == str(running_ssh_agent)
    assert "SSH_AUTH_SOCK=" in forwarded_by_ssh(board, home), "the server would have taken it"
    told = environment_there(replace(board, identity_file=None), tmp_path)
    assert "SSH_CONNECTION=" in told
    assert "SSH_AUTH_SOCK" not in told


def test_a_refused_login_tells_nothing_of_the_private_key(board, keys):
    private = keys["stranger"].read_text()
    with pytest.raises(AuthenticationRefused) as refused:
        SshTransport(ssh_target(replace(board, identity_file=keys["stranger"])), ("true",)).open_stream()
    told = f"{refused.value} {refused.value.__cause__}"
    body = [line for line in private.splitlines() if not line.startswith("-")]
    assert body and all(line not in told for line in body)
    assert not any(piece in told for piece in pieces(private))


def pieces(private: str) -> list[str]:
    """Return the key's secret half, as text that might be printed: the seed in hexadecimal and in base64."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key

    key = load_ssh_private_key(private.encode(), None)
    assert isinstance(key, Ed25519PrivateKey)
    seed = key.private_bytes_raw()
    return [seed.hex(), base64.b64encode(seed).decode()]
