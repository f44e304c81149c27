"""``~/.ssh/config``: what is read from it, what overrides it, and the ways through other hosts that it names."""

import socket
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from processes import processes_with, wait_for
from ssh_server import SshServer

from pipeline.devices.handshakes import Handshakes
from pipeline.devices.inventory import Device
from pipeline.devices.ssh_config import ssh_target
from pipeline.devices.ssh_connection import connect
from pipeline.errors import ConfigError, DeviceUnreachable, HostKeyRefused

PI4 = Device("pi4", "ssh", host="pi4")


@pytest.fixture
def write_config(home):
    def write(text):
        (home / ".ssh" / "config").write_text(text)

    return write


def log_in(device):
    with ExitStack() as stack:
        connect(ssh_target(device), stack, Handshakes())


def accepted(server: SshServer) -> bool:
    return any(line.startswith("Accepted publickey") for line in server.log)


def test_without_a_config_the_usual_defaults_apply(home):
    target = ssh_target(PI4)
    assert (target.host, target.port, target.via, target.proxy_command) == ("pi4", 22, None, None)
    assert target.identity_files[0] == home / ".ssh" / "id_ed25519"
    assert target.known_hosts_files[0] == home / ".ssh" / "known_hosts"


def test_address_port_user_and_keys_come_from_the_config(write_config, home):
    write_config(
        "Host pi4\n  HostName 10.0.0.5\n  Port 2222\n  User pi\n  IdentityFile ~/one\n  IdentityFile /two\n"
        "  ConnectTimeout 3\n  ServerAliveInterval 7\n  IdentitiesOnly yes\n"
        "Host *\n  User nobody\n  IdentityFile /three\n"
    )
    target = ssh_target(PI4)
    assert target.title == "pi4 (pi@10.0.0.5:2222)"
    assert target.identity_files == (home / "one", Path("/two"), Path("/three"))
    assert (target.connect_timeout_s, target.keepalive_s, target.identities_only) == (3, 7, True)


def test_values_of_the_device_win_over_the_config(write_config):
    write_config("Host pi4\n  HostName 10.0.0.5\n  Port 2222\n  User pi\n  IdentityFile /one\n  ConnectTimeout 3\n")
    mine = Device("pi4", "ssh", host="pi4", port=23, user="me", identity_file=Path("/mine"), connect_timeout_s=1.5)
    target = ssh_target(mine)
    assert target.title == "pi4 (me@10.0.0.5:23)"
    assert (target.own_identity, target.identity_files) == (Path("/mine"), (Path("/one"),))
    assert target.connect_timeout_s == 1.5


def test_included_files_are_read_and_what_they_open_ends_with_them(write_config, home):
    (home / ".ssh" / "boards").write_text("Host pi4\n  HostName 10.0.0.5\nHost other\n")
    write_config("Include boards\nPort 2222\n")
    assert ssh_target(PI4).known_hosts_name == "[10.0.0.5]:2222"


def test_file_that_includes_itself_is_refused(write_config):
    write_config("Include config\n")
    with pytest.raises(ConfigError, match="Include goes deeper than 16 files"):
        ssh_target(PI4)


def test_paths_with_spaces_are_read_in_quotes(write_config):
    write_config('Host pi4\n  IdentityFile "/my keys/one"\n  UserKnownHostsFile "/my lists/a" /b\n')
    target = ssh_target(PI4)
    assert target.identity_files == (Path("/my keys/one"),)
    assert target.known_hosts_files[:2] == (Path("/my lists/a"), Path("/b"))
    write_config('Host pi4\n  UserKnownHostsFile "/my lists/a"\n')
    assert ssh_target(PI4).known_hosts_files[0] == Path("/my lists/a")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("Port 22a", 'Port is "22a"; expected an integer from 1 to 65535'),
        ("Port 65536", 'Port is "65536"; expected an integer from 1 to 65535'),
        ("ProxyJump -oProxyCommand=evil", 'ProxyJump is "-oProxyCommand=evil"; expected [user@]host[:port]'),
        ("ProxyJump jump:99999", 'Port is "99999"'),
        ('UserKnownHostsFile "/a', 'UserKnownHostsFile is "/a'),
    ],
)
def test_setting_that_cannot_be_followed_is_named_with_its_file(write_config, home, line, message):
    write_config(f"{line}\n")
    with pytest.raises(ConfigError) as refused:
        ssh_target(PI4)
    assert str(refused.value).startswith(f"{home}/.ssh/config: ")
    assert message in str(refused.value)


def test_config_that_cannot_be_read_is_named(home):
    (home / ".ssh" / "config").mkdir()
    with pytest.raises(ConfigError, match=r"\.ssh/config: cannot be read"):
        ssh_target(PI4)


def test_jump_hosts_are_passed_in_their_order_each_with_its_own_settings(write_config):
    write_config(
        "Host pi4\n  User pi\n  ProxyJump gate,ann@10.0.0.9:2200\nHost gate\n  HostName 10.0.0.1\n  User guard\n"
    )
    hops = ssh_target(PI4).hops
    assert [f"{h.user}@{h.host}:{h.port}" for h in hops] == [
        "guard@10.0.0.1:22",
        "ann@10.0.0.9:2200",
        "pi@pi4:22",
    ]
    assert hops[0].title == "jump host guard@10.0.0.1:22 of pi4"


def test_device_s_own_user_and_key_are_not_given_to_the_jump_host(write_config):
    write_config("Host pi4\n  ProxyJump gate\nHost *\n  User common\n")
    gate, _ = ssh_target(Device("pi4", "ssh", host="pi4", user="pi", identity_file=Path("/mine"))).hops
    assert (gate.user, gate.own_identity) == ("common", None)


def test_jump_host_named_for_all_hosts_is_not_reached_through_itself(write_config):
    write_config("Host *\n  ProxyJump gate\n")
    assert [hop.host for hop in ssh_target(PI4).hops] == ["gate", "pi4"]


@pytest.mark.parametrize("setting", ["ProxyJump none", "ProxyCommand none"])
def test_none_takes_back_the_proxy_of_all_hosts(write_config, setting):
    write_config(f"Host pi4\n  {setting}\nHost *\n  {setting.split()[0]} gate\n")
    target = ssh_target(PI4)
    assert (target.via, target.proxy_command) == (None, None)


@pytest.mark.sshd
def test_alias_of_the_config_with_several_keys_is_logged_in_to(board, write_config, keys):
    write_config(
        f"Host pi4\n  HostName 127.0.0.1\n  Port {board.port}\n  User {board.user}\n"
        f"  IdentityFile {keys['stranger']}\n  IdentityFile {keys['user']}\n"
    )
    log_in(PI4)


@pytest.fixture
def closed_port():
    """A port that nobody else can take, and where nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@pytest.fixture
def gate(board, start_sshd, home):
    """A second server, known to the user, through which ``board`` is reached."""
    server = start_sshd("host_b")
    with (home / ".ssh" / "known_hosts").open("a") as lines:
        lines.write(server.known_hosts_line)
    return server


def through(gate, key):
    return (
        f"Host 127.0.0.1\n  ProxyJump gate\nHost gate\n  HostName 127.0.0.1\n  Port {gate.port}\n"
        f"  User {gate.user}\n  IdentityFile {key}\n"
    )


@pytest.mark.sshd
def test_board_behind_a_jump_host_is_reached_through_it(board, gate, write_config):
    write_config(through(gate, gate.user_key))
    with ExitStack() as stack:
        connect(ssh_target(board), stack, Handshakes())
        assert gate.cut_connections() == 1
    wait_for(lambda: accepted(gate), 10)


@pytest.mark.sshd
def test_board_that_the_jump_host_cannot_reach_is_told_so(board, gate, write_config, closed_port):
    write_config(through(gate, gate.user_key))
    with pytest.raises(DeviceUnreachable, match=rf"pi4 .* cannot be reached from jump host .*:{gate.port} of pi4: "):
        log_in(replace(board, port=closed_port))


@pytest.mark.sshd
def test_jump_host_that_is_unknown_is_refused_before_we_log_in_there(sshd, board, gate, write_config, home):
    (home / ".ssh" / "known_hosts").write_text(sshd.known_hosts_line)
    write_config(through(gate, gate.user_key))
    with pytest.raises(HostKeyRefused, match=rf"jump host .*:{gate.port} of pi4 is unknown"):
        log_in(board)
    assert not accepted(gate)


@pytest.mark.sshd
def test_board_is_reached_by_a_proxy_command_which_ends_with_the_connection(board, gate, write_config, keys, home):
    write_config(
        f"Host 127.0.0.1\n  ProxyCommand ssh -F /dev/null -o UserKnownHostsFile={home}/.ssh/known_hosts"
        f" -i {keys['user']} -p {gate.port} -W %h:%p 127.0.0.1\n"
    )
    with ExitStack() as stack:
        connect(ssh_target(board), stack, Handshakes())
        assert processes_with(f"{home}/.ssh/known_hosts")
    assert not processes_with(f"{home}/.ssh/known_hosts")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("/bin/false", 'no SSH server answers through ProxyCommand "/bin/false"'),
        ("/no/such/program", 'ProxyCommand "/no/such/program" of pi4 .* cannot be run'),
    ],
)
def test_proxy_command_that_fails_is_named(write_config, command, message):
    write_config(f"Host pi4\n  ProxyCommand {command}\n")
    with pytest.raises(DeviceUnreachable, match=message):
        log_in(PI4)
