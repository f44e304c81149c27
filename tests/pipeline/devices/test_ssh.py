"""Reaching a board over a real sshd: the ways that work, and one clear message for each that does not."""

import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from boards import device_on
from ssh_server import fingerprint

from pipeline.devices import ssh as ssh_module
from pipeline.devices.host_keys import trust
from pipeline.devices.inventory import Device
from pipeline.devices.ssh import SshTransport, ssh_transport
from pipeline.devices.ssh_config import ssh_target
from pipeline.devices.ssh_connection import connect, fetch_host_key
from pipeline.devices.transport import open_transport
from pipeline.devices.trust import trust_device
from pipeline.errors import AuthenticationRefused, DeviceUnreachable, HostKeyRefused

pytestmark = pytest.mark.sshd

RELAY = """
import os, socket, sys, threading
far = socket.create_connection((sys.argv[1], int(sys.argv[2])))
def send():
    for chunk in iter(lambda: os.read(0, 65536), b""):
        far.sendall(chunk)
    os._exit(0)
threading.Thread(target=send).start()
for chunk in iter(lambda: far.recv(65536), b""):
    os.write(1, chunk)
"""


def reach(device):
    """Connect and log in; return the error's message, or None when all went well."""
    with ExitStack() as stack:
        return connect(ssh_target(device), stack).is_authenticated()


def refusal(kind, device):
    with pytest.raises(kind) as refused:
        reach(device)
    return str(refused.value)


def configure(home, text):
    (home / ".ssh" / "config").write_text(text)


def test_an_unknown_key_is_refused_and_trusting_it_helps(sshd, keys):
    device = device_on(sshd)
    message = refusal(HostKeyRefused, device)
    assert fingerprint(keys["host_a"]) in message
    assert 'run "edgepress device trust pi4"' in message
    shown = []
    assert trust_device(device, shown.append, replace=False) == 1
    assert [key.fingerprint for key in shown] == [fingerprint(keys["host_a"])]
    assert reach(device)
    assert trust_device(device, shown.append, replace=False) == 0


def test_a_changed_key_is_refused_before_anything_is_sent(sshd, home, keys):
    (home / ".ssh" / "known_hosts").write_text(
        sshd.known_hosts_line.replace(
            keys["host_a"].with_name("host_a.pub").read_text().split()[1],
            keys["host_b"].with_name("host_b.pub").read_text().split()[1],
        )
    )
    message = refusal(HostKeyRefused, device_on(sshd))
    assert fingerprint(keys["host_b"]) in message
    assert fingerprint(keys["host_a"]) in message
    assert "this may be an attack" in message
    assert not any("Accepted" in line or "Failed" in line for line in sshd.log)
    with pytest.raises(HostKeyRefused, match="has changed"):
        trust_device(device_on(sshd), lambda shown: None, replace=False)
    assert trust_device(device_on(sshd), lambda shown: None, replace=True) == 1
    assert reach(device_on(sshd))


def test_a_host_is_asked_for_the_type_of_key_that_is_known(start_sshd, home, keys):
    server = start_sshd("host_a", "host_rsa")
    rsa = keys["host_rsa"].with_name("host_rsa.pub").read_text()
    (home / ".ssh" / "known_hosts").write_text(f"[{server.host}]:{server.port} {rsa}")
    assert reach(device_on(server))


def test_the_ssh_configuration_alone_is_enough_to_reach_a_board(sshd, home):
    (home / "hosts").write_text(sshd.known_hosts_line)
    configure(
        home,
        f"Host board\n HostName {sshd.host}\n Port {sshd.port}\n User {sshd.user}\n IdentityFile {sshd.user_key}\n"
        " UserKnownHostsFile /nonexistent ~/hosts\n",
    )
    assert reach(Device("pi4", "ssh", "board"))


def test_a_key_that_is_not_authorized_is_listed_in_the_refusal(board, keys):
    message = refusal(AuthenticationRefused, replace(board, identity_file=keys["stranger"]))
    assert f"refused the login; keys offered: {keys['stranger']} (ssh-ed25519 {fingerprint(keys['stranger'])})" in message
    assert "authorized_keys" in message


def test_a_key_file_that_is_missing_is_named(board):
    message = refusal(AuthenticationRefused, replace(board, identity_file=Path("/nonexistent/id")))
    assert message == 'key file /nonexistent/id does not exist; pi4 names it as "identity_file"'


def test_a_key_with_a_passphrase_is_told_how_to_be_used(board, keys):
    message = refusal(AuthenticationRefused, replace(board, identity_file=keys["locked"]))
    assert f'{keys["locked"]} needs a passphrase: run "ssh-add {keys["locked"]}"' in message


def test_a_file_that_is_no_key_is_told(board, tmp_path):
    (tmp_path / "text").write_text("not a key")
    message = refusal(AuthenticationRefused, replace(board, identity_file=tmp_path / "text"))
    assert "keys offered: none" in message
    assert "text is no private key of a supported type" in message


@pytest.fixture
def ssh_agent(tmp_path, monkeypatch, keys):
    """An ssh-agent that holds the user's key and a stranger's."""
    path = str(tmp_path / "agent.sock")
    process = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.PIPE)
    process.stdout.readline()
    monkeypatch.setenv("SSH_AUTH_SOCK", path)
    subprocess.run(["ssh-add", "-q", str(keys["stranger"]), str(keys["user"])], check=True)
    yield
    process.terminate()
    process.wait()
    process.stdout.close()


@pytest.mark.usefixtures("ssh_agent")
def test_the_keys_of_ssh_agent_are_offered(board):
    assert reach(replace(board, identity_file=None))


@pytest.mark.usefixtures("ssh_agent")
def test_with_identities_only_ssh_agent_offers_no_other_key(board, home, keys):
    device = replace(board, identity_file=None)
    configure(home, f"IdentitiesOnly yes\nIdentityFile {keys['stranger']}.pub\n")
    message = refusal(AuthenticationRefused, device)
    assert 'ssh-agent "stranger"' in message
    assert 'ssh-agent "user"' not in message
    configure(home, f"IdentitiesOnly yes\nIdentityFile {keys['user']}.pub\n")
    assert reach(device)


def test_a_closed_port_is_told(board, sshd):
    sshd.stop()
    message = refusal(DeviceUnreachable, board)
    assert message.startswith(f"pi4 ({sshd.user}@127.0.0.1:{sshd.port}): connection refused; check that it is up")


def test_an_unknown_host_name_is_told(board):
    assert 'host name "no-such.invalid" is unknown' in refusal(DeviceUnreachable, replace(board, host="no-such.invalid"))


@pytest.fixture
def other_server():
    """A function that listens on a port and does ``answer`` with whoever connects."""
    with ExitStack() as stack:

        def listen(answer):
            server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            threading.Thread(target=lambda: answer(server.accept()[0]), daemon=True).start()
            return server.getsockname()[1]

        yield listen


def test_a_port_where_nobody_answers_is_told_in_time(board, other_server):
    held = []
    device = replace(board, port=other_server(held.append), connect_timeout_s=0.3)
    assert "no SSH server answers there" in refusal(DeviceUnreachable, device)
    held[0].close()


def test_a_port_that_hangs_up_is_told(board, other_server):
    assert "no SSH server answers there" in refusal(DeviceUnreachable, replace(board, port=other_server(socket.socket.close)))


def test_a_board_behind_a_jump_host_is_reached_once_both_are_trusted(start_sshd, home, keys):
    board, jump = start_sshd("host_a"), start_sshd("host_b")
    configure(
        home,
        f"Host board\n HostName {board.host}\n ProxyJump bastion\n"
        f"Host bastion\n HostName {jump.host}\n Port {jump.port}\n IdentityFile {jump.user_key}\n",
    )
    device = device_on(board, host="board")
    assert f"host key of jump host {jump.user}@127.0.0.1:{jump.port} of pi4 is unknown" in refusal(HostKeyRefused, device)
    shown = []
    assert trust_device(device, shown.append, replace=False) == 2
    assert [key.fingerprint for key in shown] == [fingerprint(keys["host_b"]), fingerprint(keys["host_a"])]
    assert reach(device)
    assert any("Accepted publickey" in line for line in jump.log)
    board.stop()
    assert f"cannot be reached from jump host {jump.user}@127.0.0.1:{jump.port} of pi4" in refusal(
        DeviceUnreachable, device
    )


def test_a_proxy_command_carries_the_connection_and_ends_with_it(board, home, tmp_path):
    (tmp_path / "relay.py").write_text(RELAY)
    configure(home, f"ProxyCommand {shlex.join([sys.executable, str(tmp_path / 'relay.py')])} %h %p\n")
    assert reach(board)
    assert subprocess.run(["pgrep", "-f", str(tmp_path / "relay.py")], stdout=subprocess.PIPE).stdout == b""


@pytest.mark.parametrize(
    ("command", "said"),
    [("/nonexistent/nc", "cannot be run: "), ("false", "no SSH server answers through ProxyCommand"), ("'", "cannot be run")],
)
def test_a_proxy_command_that_fails_is_named(board, home, command, said):
    configure(home, f"ProxyCommand {command} %h %p\n")
    message = refusal(DeviceUnreachable, board)
    assert said in message
    assert f"{command} 127.0.0.1 {board.port}" in message


def test_a_far_end_without_an_agent_says_what_to_do(board):
    transport = ssh_transport(replace(board, agent="/nonexistent/edgepress-agent"))
    with pytest.raises(DeviceUnreachable) as refused:
        transport.open_stream().read_line(10)
    message = str(refused.value)
    assert message.startswith(f"no agent on pi4 ({board.user}@127.0.0.1:{board.port}): ")
    assert "No such file or directory (exit status 127); install edgepress-agent there, or give its path" in message
    transport.close()


def test_no_word_of_the_command_is_read_by_the_far_shell(board, tmp_path):
    transport = SshTransport(ssh_target(board), ("echo", f"$(touch {tmp_path}/made)", "; exit 3", "~", "*"))
    assert transport.open_stream().read_line(10).decode() == f"$(touch {tmp_path}/made) ; exit 3 ~ *\n"
    assert not (tmp_path / "made").exists()
    transport.close()


@pytest.fixture
def echo(board, monkeypatch):
    """A transport to a far end that says back what it is told, with a keepalive that tests can wait for."""
    monkeypatch.setattr(ssh_module, "PROBE_TIMEOUT_S", 0.5)
    transport = SshTransport(replace(ssh_target(board), keepalive_s=0.1), ("cat",))
    yield transport
    transport.close()


def test_a_stream_carries_lines_both_ways(echo):
    stream = echo.open_stream()
    stream.write_line(b"one\n")
    stream.write_line(b"x" * 200_000 + b"\n")
    assert stream.read_line(10) == b"one\n"
    assert len(stream.read_line(10)) == 200_001
    stream.close()
    stream.close()


def test_a_far_end_that_is_silent_but_alive_is_waited_for(echo):
    stream = echo.open_stream()
    with pytest.raises(DeviceUnreachable, match="does not answer"):
        stream.read_line(0.5)
    stream.write_line(b"still here\n")
    assert stream.read_line(None) == b"still here\n"


def test_a_far_end_that_is_dead_is_noticed_without_a_time_out(echo, sshd):
    stream = echo.open_stream()
    stream.write_line(b"one\n")
    stream.read_line(10)
    sshd.cut_connections(signal.SIGSTOP)
    with pytest.raises(DeviceUnreachable, match=r"pi4 .* gives no sign of life for 0\.6 s"):
        stream.read_line(None)
    sshd.cut_connections()


def test_a_cut_connection_is_told_and_opened_again_by_the_next_call(echo, sshd):
    stream = echo.open_stream()
    stream.write_line(b"one\n")
    stream.read_line(10)
    assert sshd.cut_connections() == 1
    with pytest.raises(DeviceUnreachable, match=r"the connection to pi4 .* was cut"):
        stream.read_line(None)
    with pytest.raises(DeviceUnreachable):
        stream.write_line(b"two\n")
    again = echo.open_stream()
    again.write_line(b"three\n")
    assert again.read_line(10) == b"three\n"


def test_one_connection_serves_streams_and_files(board, sshd, tmp_path):
    transport = open_transport(replace(board, agent="/bin/cat"))
    transport.open_stream()
    (tmp_path / "a").write_bytes(b"content")
    transport.put_file(tmp_path / "a", str(tmp_path / "b"), 0, lambda size: None)
    transport.put_file(tmp_path / "a", str(tmp_path / "c"), 0, lambda size: None)
    assert sum("Accepted publickey" in line for line in sshd.log) == 1
    transport.close()
    transport.close()


def test_the_key_is_fetched_without_logging_in(sshd, keys):
    target = ssh_target(device_on(sshd, identity_file=None))
    key = fetch_host_key(target)
    assert key.fingerprint == fingerprint(keys["host_a"])
    trust(target, key, replace=False)
    assert not any("Accepted" in line for line in sshd.log)
    assert os.environ["HOME"] in str(target.trusted_file)
