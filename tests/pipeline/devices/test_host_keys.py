"""Host keys: what is refused, what is believed, and what ``trust`` writes; against a real sshd."""

import subprocess
from contextlib import ExitStack

import pytest
from boards import device_on
from ssh_server import fingerprint

from pipeline.devices.handshakes import Handshakes
from pipeline.devices.host_keys import known_keys
from pipeline.devices.inventory import LOCAL
from pipeline.devices.ssh_config import ssh_target
from pipeline.devices.ssh_connection import connect
from pipeline.devices.trust import trust_device
from pipeline.errors import HostKeyRefused, UsageError

pytestmark = pytest.mark.sshd


class NotTheSame(Exception):
    """Somebody looked at a fingerprint and said no."""


def log_in(device):
    with ExitStack() as stack:
        connect(ssh_target(device), stack, Handshakes())


def refusal(device):
    with pytest.raises(HostKeyRefused) as refused:
        log_in(device)
    return str(refused.value)


def trust(device, replace=False):
    shown = []
    return trust_device(device, shown.append, replace), shown


def files_below(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def own_list(home):
    return home / ".config" / "edgepress" / "known_hosts"


def users_list(home):
    return home / ".ssh" / "known_hosts"


def exchange_key(server, key):
    """Let ``server`` show another host key at the same port, as a board installed anew does."""
    server.stop()
    server.host_keys = [key]
    server.start()


def test_unknown_key_is_refused_with_its_fingerprint_and_the_command_to_trust_it(sshd, home, keys):
    before = files_below(home)
    message = refusal(device_on(sshd))
    assert f"host key of pi4 ({sshd.user}@127.0.0.1:{sshd.port}) is unknown" in message
    assert f"ssh-ed25519 {fingerprint(keys['host_a'])}" in message
    assert '"edgepress device trust pi4"' in message
    assert files_below(home) == before


def test_trusted_key_is_written_to_our_own_list_only_and_then_lets_us_in(sshd, home):
    users_list(home).write_text("example.org ssh-ed25519 of-no-use\n")
    before = files_below(home)
    taken, shown = trust(device_on(sshd))
    assert taken == 1
    assert [(key.key_type, key.fingerprint) for key in shown] == [("ssh-ed25519", fingerprint(sshd.host_keys[0]))]
    assert files_below(home) == {**before, own_list(home): sshd.known_hosts_line.encode()}
    assert own_list(home).stat().st_mode & 0o777 == 0o600
    log_in(device_on(sshd))


def test_key_that_was_not_confirmed_is_not_written(sshd, home):
    def refuse(_):
        raise NotTheSame

    with pytest.raises(NotTheSame):
        trust_device(device_on(sshd), refuse, replace=False)
    assert not own_list(home).exists()


def test_key_that_is_known_already_is_not_asked_about_again(board):
    assert trust(board) == (0, [])


def test_trusting_one_host_keeps_the_keys_of_the_others(sshd, start_sshd, home):
    other = start_sshd("host_b")
    trust(device_on(sshd))
    trust(device_on(other))
    assert own_list(home).read_text() == sshd.known_hosts_line + other.known_hosts_line


def test_changed_key_is_refused_with_both_fingerprints_and_the_command_to_replace_it(start_sshd, home, keys):
    server = start_sshd("host_a")
    trust(device_on(server))
    exchange_key(server, keys["host_b"])
    message = refusal(device_on(server))
    assert f"expected ssh-ed25519 {fingerprint(keys['host_a'])} ({own_list(home)}:1)" in message
    assert f"found ssh-ed25519 {fingerprint(keys['host_b'])}" in message
    assert 'run "edgepress device trust pi4 --replace"' in message
    assert "ssh-keygen" not in message


def test_changed_key_is_taken_over_by_replace_alone(start_sshd, home, keys):
    server = start_sshd("host_a")
    trust(device_on(server))
    exchange_key(server, keys["host_b"])
    before = files_below(home)
    with pytest.raises(HostKeyRefused, match="has changed"):
        trust(device_on(server))
    assert files_below(home) == before
    taken, shown = trust(device_on(server), replace=True)
    assert (taken, [key.fingerprint for key in shown]) == (1, [fingerprint(keys["host_b"])])
    assert own_list(home).read_text() == server.known_hosts_line
    log_in(device_on(server))


def test_key_replaced_in_our_list_is_no_longer_believed_although_the_users_list_has_it(start_sshd, home, keys):
    server = start_sshd("host_a")
    users_list(home).write_text(server.known_hosts_line)
    exchange_key(server, keys["host_b"])
    assert f"ssh-keygen -R '[127.0.0.1]:{server.port}' -f {users_list(home)}" in refusal(device_on(server))
    trust(device_on(server), replace=True)
    log_in(device_on(server))
    exchange_key(server, keys["host_a"])
    assert "has changed" in refusal(device_on(server))


def test_key_in_the_users_known_hosts_is_believed(board):
    log_in(board)


def test_hashed_entry_of_the_users_known_hosts_is_believed(board, home):
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(users_list(home))], check=True, capture_output=True)
    assert users_list(home).read_text().startswith("|1|")
    log_in(board)


def test_pattern_in_the_users_known_hosts_is_believed_and_its_exception_is_not(sshd, home):
    key = sshd.known_hosts_line.split(" ", 1)[1]
    users_list(home).write_text(f"[127.0.0.*]:{sshd.port} {key}")
    log_in(device_on(sshd))
    users_list(home).write_text(f"[127.0.0.*]:{sshd.port},![127.0.0.1]:{sshd.port} {key}")
    assert "is unknown" in refusal(device_on(sshd))


def test_user_known_hosts_file_of_the_ssh_config_takes_the_place_of_the_default(sshd, home):
    named = home / "my known hosts"
    named.write_text(sshd.known_hosts_line)
    (home / ".ssh" / "config").write_text(f'Host 127.0.0.1\n  UserKnownHostsFile /dev/null "{named}"\n')
    log_in(device_on(sshd))
    named.rename(users_list(home))
    assert "is unknown" in refusal(device_on(sshd))


def test_the_key_type_that_is_known_is_the_one_the_server_is_asked_for(start_sshd, home, keys):
    server = start_sshd("host_a", "host_rsa")
    kind, content = keys["host_rsa"].with_name("host_rsa.pub").read_text().split()[:2]
    users_list(home).write_text(f"[127.0.0.1]:{server.port} {kind} {content}\n")
    log_in(device_on(server))


def test_revoked_key_is_refused_although_another_line_has_it(sshd, board, home):
    with users_list(home).open("a") as lines:
        lines.write(f"@revoked {sshd.known_hosts_line}")
    message = refusal(board)
    assert f"is revoked by {users_list(home)}:2: ssh-ed25519 {fingerprint(sshd.host_keys[0])}" in message
    with pytest.raises(HostKeyRefused, match="is revoked"):
        trust(board, replace=True)


def test_lines_that_are_no_entries_are_passed_over(board, home):
    users_list(home).write_bytes(
        b"# a remark\n\nnonsense\nhost ssh-ed25519 !!!\n\xff\xfe\n" + files_below(home)[users_list(home)]
    )
    assert [known.line for known in known_keys(ssh_target(board))] == [6]


def test_certificate_authority_is_not_taken_for_a_host_key(sshd, board, home):
    users_list(home).write_text(f"@cert-authority {sshd.known_hosts_line}")
    assert "is unknown" in refusal(board)


def test_trust_takes_over_the_keys_of_the_hosts_on_the_way_too(sshd, start_sshd, home):
    jump = start_sshd("host_b")
    config = f"Host 127.0.0.1\n  ProxyJump jump\nHost jump\n  HostName 127.0.0.1\n  Port {jump.port}\n"
    (home / ".ssh" / "config").write_text(f"{config}  IdentityFile {jump.user_key}\n  User {jump.user}\n")
    assert refusal(device_on(sshd)).startswith(
        f"host key of jump host {jump.user}@127.0.0.1:{jump.port} of pi4 is unknown"
    )
    taken, shown = trust(device_on(sshd))
    assert taken == 2
    assert [key.fingerprint for key in shown] == [fingerprint(jump.host_keys[0]), fingerprint(sshd.host_keys[0])]
    log_in(device_on(sshd))


def test_this_machine_has_no_host_key_to_trust():
    with pytest.raises(UsageError, match="there is no host key to trust"):
        trust(LOCAL)
