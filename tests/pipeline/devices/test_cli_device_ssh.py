"""``edgepress device`` through a real sshd: a board is added, trusted, checked; and what refuses each."""

import pytest
from boards import AGENT
from click.testing import CliRunner
from ssh_server import fingerprint

from device_agent.protocol import PROTOCOL_VERSION
from pipeline.cli_device import device
from pipeline.devices.inventory import find_device
from pipeline.errors import DeviceUnreachable, HostKeyRefused, UsageError

pytestmark = pytest.mark.sshd


def run(*arguments, typed=None):
    return CliRunner().invoke(device, [str(argument) for argument in arguments], input=typed)


@pytest.fixture(autouse=True)
def added(sshd, agent_home):
    """A board that was added by the command, and is trusted by nobody yet."""
    done = run(
        "add", "pi4", "--host", sshd.host, "--port", sshd.port, "--user", sshd.user, "--identity-file", sshd.user_key,
        "--agent", AGENT, "--home", agent_home, "--tag", "lab", "--tag", "arm",
    )  # fmt: skip
    assert done.exit_code == 0
    assert find_device("pi4").tags == ("lab", "arm")


def test_a_board_is_trusted_checked_and_removed(sshd, keys):
    assert isinstance(run("check", "pi4").exception, HostKeyRefused)
    trusted = run("trust", "pi4", typed="y\n")
    assert f"pi4 ({sshd.user}@127.0.0.1:{sshd.port}) shows the host key" in trusted.output
    assert f"ssh-ed25519 {fingerprint(keys['host_a'])}" in trusted.output
    assert trusted.output.endswith("pi4 is trusted\n")
    assert run("trust", "pi4").output == "pi4 was trusted already\n"
    checked = run("check", "pi4")
    assert checked.exit_code == 0
    for word in ("board", f"protocol {PROTOCOL_VERSION}", "runtime null", "free space", "MiB in"):
        assert word in checked.output
    assert run("remove", "pi4").output.startswith("removed ")
    assert isinstance(run("check", "pi4").exception, UsageError)


@pytest.mark.parametrize("typed", ["n\n", ""])
def test_a_fingerprint_that_is_not_agreed_to_is_not_kept(typed):
    assert run("trust", "pi4", typed=typed).exit_code == 1
    assert isinstance(run("check", "pi4").exception, HostKeyRefused)


def test_a_changed_key_is_taken_over_only_with_replace(sshd, keys):
    assert run("trust", "pi4", "--yes").exit_code == 0
    sshd.stop()
    sshd.host_keys[:] = [keys["host_b"]]
    sshd.start()
    refused = run("trust", "pi4", "--yes").exception
    assert isinstance(refused, HostKeyRefused)
    assert "this may be an attack" in str(refused)
    assert run("trust", "pi4", "--yes", "--replace").exit_code == 0
    assert run("check", "pi4").exit_code == 0


def test_a_board_that_is_down_fails_the_check(sshd):
    sshd.stop()
    refused = run("check", "pi4").exception
    assert isinstance(refused, DeviceUnreachable)
    assert refused.exit_code == 1
    assert "connection refused" in str(refused)
