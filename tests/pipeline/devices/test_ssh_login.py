"""Logging in: which keys are offered, from where, and what is said when none is accepted; against a real sshd."""

import os
import re
import signal
import subprocess
from contextlib import ExitStack
from dataclasses import replace

import pytest
from boards import device_on
from ssh_server import fingerprint, make_key

from pipeline.devices.handshakes import Handshakes
from pipeline.devices.ssh_config import ssh_target
from pipeline.devices.ssh_connection import connect
from pipeline.errors import AuthenticationRefused, DeviceUnreachable

pytestmark = pytest.mark.sshd


def log_in(device):
    with ExitStack() as stack:
        assert connect(ssh_target(device), stack, Handshakes()).is_authenticated()


def refusal(device):
    with pytest.raises(AuthenticationRefused) as refused:
        log_in(device)
    return str(refused.value)


@pytest.fixture
def ssh_agent(tmp_path_factory, keys, monkeypatch):
    """A function that puts keys into a running ssh-agent."""
    # A socket's path must be short.
    where = tmp_path_factory.mktemp("agent") / "s"
    said = subprocess.run(["ssh-agent", "-s", "-a", str(where)], check=True, capture_output=True, text=True).stdout
    monkeypatch.setenv("SSH_AUTH_SOCK", str(where))

    def add(*paths, passphrase=""):
        # ssh-add asks for a passphrase through a program only.
        ask = where.with_name("ask")
        ask.write_text(f"#!/bin/sh\necho '{passphrase}'\n")
        ask.chmod(0o700)
        environment = {**os.environ, "SSH_ASKPASS": str(ask), "SSH_ASKPASS_REQUIRE": "force"}
        subprocess.run(["ssh-add", "-q", *map(str, paths)], check=True, env=environment)

    yield add
    os.kill(int(re.search(r"SSH_AGENT_PID=(\d+)", said)[1]), signal.SIGTERM)


def test_key_of_the_device_logs_in(board):
    log_in(board)


def test_default_key_logs_in_when_none_is_named(board, home, keys):
    (home / ".ssh" / "id_ed25519").write_bytes(keys["user"].read_bytes())
    log_in(replace(board, identity_file=None))


def test_refused_login_names_every_key_that_was_offered_and_what_to_do(board, home, keys):
    (home / ".ssh" / "id_rsa").write_bytes(keys["host_rsa"].read_bytes())
    message = refusal(replace(board, identity_file=keys["stranger"]))
    assert message.startswith(f"pi4 ({board.user}@127.0.0.1:{board.port}) refused the login; keys offered: ")
    assert f"{keys['stranger']} (ssh-ed25519 {fingerprint(keys['stranger'])})" in message
    assert f"{home}/.ssh/id_rsa (ssh-rsa {fingerprint(keys['host_rsa'])})" in message
    assert f"put a public key into {board.user}'s authorized_keys there" in message


def test_refused_login_without_any_key_says_none(board):
    assert "keys offered: none; put" in refusal(replace(board, identity_file=None))


def test_user_unknown_at_the_far_end_is_refused(board):
    assert "pi4 (nosuchuser@" in refusal(replace(board, user="nosuchuser"))


def test_key_file_of_the_device_that_is_missing_is_named(board, tmp_path):
    message = refusal(replace(board, identity_file=tmp_path / "gone"))
    assert message == f'key file {tmp_path}/gone does not exist; pi4 names it as "identity_file"'


def test_missing_key_file_of_the_ssh_config_is_passed_over(board, home, keys):
    (home / ".ssh" / "config").write_text(f"IdentityFile {home}/gone\nIdentityFile {keys['user']}\n")
    log_in(replace(board, identity_file=None))


def test_key_with_a_passphrase_is_refused_with_the_command_to_unlock_it(board, keys):
    message = refusal(replace(board, identity_file=keys["locked"]))
    assert f'not usable: {keys["locked"]} needs a passphrase: run "ssh-add {keys["locked"]}"' in message


def test_file_that_is_no_private_key_is_named(board, keys):
    public = keys["user"].with_name("user.pub")
    assert f"not usable: {public} is no private key" in refusal(replace(board, identity_file=public))


def test_key_that_ssh_agent_holds_logs_in(board, keys, ssh_agent):
    ssh_agent(keys["user"])
    log_in(replace(board, identity_file=None))


def test_key_with_a_passphrase_logs_in_once_ssh_agent_holds_it(start_sshd, home, keys, ssh_agent):
    server = start_sshd("host_a")
    (home / ".ssh" / "known_hosts").write_text(server.known_hosts_line)
    (server.folder / "authorized_keys").write_text(keys["locked"].with_name("locked.pub").read_text())
    ssh_agent(keys["locked"], passphrase="a secret")  # noqa: S106  a test's key
    log_in(device_on(server, identity_file=keys["locked"]))


def test_refused_key_of_ssh_agent_is_named_with_its_comment(board, keys, ssh_agent):
    ssh_agent(keys["stranger"])
    assert f'ssh-agent "stranger" (ssh-ed25519 {fingerprint(keys["stranger"])})' in refusal(
        replace(board, identity_file=None)
    )


def test_identities_only_keeps_back_the_keys_of_ssh_agent_that_no_file_names(board, home, keys, ssh_agent):
    ssh_agent(keys["user"], keys["stranger"])
    config = home / ".ssh" / "config"
    config.write_text("IdentitiesOnly yes\n")
    assert "keys offered: none" in refusal(replace(board, identity_file=None))
    config.write_text(f"IdentitiesOnly yes\nIdentityFile {keys['user'].with_name('user.pub')}\n")
    log_in(replace(board, identity_file=None))


def test_ssh_agent_that_is_gone_is_passed_over(board, tmp_path, monkeypatch):
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "gone"))
    log_in(board)


@pytest.mark.parametrize("count", [6, 7])
def test_server_that_hangs_up_after_too_many_keys_is_not_taken_for_one_that_is_down(board, home, tmp_path, count):
    many = [make_key(tmp_path / f"key{number}") for number in range(count)]
    (home / ".ssh" / "config").write_text("".join(f"IdentityFile {key}\n" for key in many))
    with pytest.raises(DeviceUnreachable) as refused:
        log_in(replace(board, identity_file=None))
    assert f"hung up while {many[5]} (ssh-ed25519 {fingerprint(many[5])}) was offered" in str(refused.value)
    assert 'set "identity_file", and IdentitiesOnly in ~/.ssh/config' in str(refused.value)
