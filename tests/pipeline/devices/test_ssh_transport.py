"""The SSH transport: reaching a board, talking to its agent, and moving files; against a real sshd."""

import signal
import socket
import threading
import time
from contextlib import ExitStack
from dataclasses import replace

import pytest

from device_agent.protocol import PROTOCOL_VERSION, Hello, decode, from_json
from pipeline.devices import sftp as sftp_module
from pipeline.devices import ssh as ssh_module
from pipeline.devices import transport as transport_module
from pipeline.devices.handshakes import Handshakes
from pipeline.devices.inventory import Device
from pipeline.devices.ssh import SshTransport, attach_command
from pipeline.devices.ssh_command import MOST_OUTPUT_BYTES, Patience
from pipeline.devices.ssh_config import ssh_target
from pipeline.devices.ssh_connection import connect
from pipeline.errors import DeviceError, DeviceFull, DeviceUnreachable, StorageError

pytestmark = pytest.mark.sshd

CONTENT = bytes(range(256)) * 1000
TOO_MUCH = f"it printed more than {MOST_OUTPUT_BYTES} bytes"


@pytest.fixture
def opened():
    """A function that opens the transport to a device and closes it after the test."""
    transports = []

    def open_transport(device):
        transports.append(transport_module.open_transport(device))
        return transports[-1]

    yield open_transport
    for one in transports:
        one.close()


@pytest.fixture
def link(board, opened):
    """The transport to the shared server."""
    return opened(board)


@pytest.fixture
def script(tmp_path):
    """A function that writes a shell script to be started in the agent's place, and returns its path."""

    def write(body):
        path = tmp_path / "agent.sh"
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
        return str(path)

    return write


@pytest.fixture
def closed_port():
    """A port that nobody else can take, and where nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "source"
    path.write_bytes(CONTENT)
    return path


def failure(link, kind=DeviceUnreachable):
    """Return what is said when the agent is started and listened to."""
    with pytest.raises(kind) as failed:
        link.open_stream().read_line(10)
    return str(failed.value)


def nothing(_):
    pass


# Reaching it


def test_nothing_is_connected_before_the_first_call(sshd, board, opened):
    opened(board)
    assert sshd.cut_connections() == 0


def test_small_packets_wait_for_no_acknowledgement(board):
    target = ssh_target(board)
    with ExitStack() as stack:
        connected = connect(target, stack, Handshakes()).sock
        assert connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_closed_port_is_told_with_what_to_check(opened, closed_port):
    device = Device("pi4", "ssh", host="127.0.0.1", port=closed_port, user="pi")
    assert failure(opened(device)) == (
        f"pi4 (pi@127.0.0.1:{closed_port}): connection refused; "
        f"check that it is up and that sshd listens on port {closed_port}"
    )


def test_unknown_host_name_is_told(opened):
    message = failure(opened(Device("pi4", "ssh", host="no-such-board.invalid", user="pi")))
    assert message.startswith('pi4 (pi@no-such-board.invalid:22): host name "no-such-board.invalid" is unknown')


def test_server_that_accepts_and_says_nothing_is_given_up_in_time(opened):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        device = Device("pi4", "ssh", host="127.0.0.1", port=silent.getsockname()[1], connect_timeout_s=0.2)
        started = time.monotonic()
        assert "no SSH server answers there: " in failure(opened(device))
        assert time.monotonic() - started < 3


def test_server_that_hangs_up_at_once_is_told(opened):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        device = Device("pi4", "ssh", host="127.0.0.1", port=listener.getsockname()[1], connect_timeout_s=2)
        visit = threading.Thread(target=lambda: listener.accept()[0].close())
        visit.start()
        assert "no SSH server answers there: " in failure(opened(device))
        visit.join()


# Commands that end by themselves


def test_a_command_gets_its_input_and_its_output_and_lines_are_told(link):
    lines = []
    given = b"x" * 300_000 + b"\nend"
    ended = link.run(("sh", "-c", "cat; echo said >&2; exit 3"), given, Patience(10, 20), lines.append)
    assert (ended.exit_status, ended.stdout, ended.stderr) == (3, given, b"said\n")
    assert lines == [given.partition(b"\n")[0]]


@pytest.mark.parametrize(
    ("script", "patience", "said"),
    [
        ("sleep 200", Patience(0.5, 100), "it was silent for 0.5 s"),
        ("while :; do echo x; sleep 0.05; done", Patience(100, 1), "it did not end within 1 s"),
        ("exec yes", Patience(100, 100), TOO_MUCH),
        ("while :; do echo x; head -c 65536 /dev/zero >&2; done", Patience(100, 100), TOO_MUCH),
    ],
)
def test_a_board_that_does_not_come_to_an_end_is_given_up(link, script, patience, said):
    with pytest.raises(DeviceUnreachable) as given_up:
        link.run(("sh", "-c", script), b"", patience)
    assert said in str(given_up.value)


# Talking to the agent


def test_agent_at_the_far_end_is_started_and_says_hello(ssh, agent_home):
    stream = ssh.open_stream()
    hello = from_json(Hello, decode(stream.read_line(30))["params"])
    assert (hello.protocol, hello.home) == (PROTOCOL_VERSION, str(agent_home))
    stream.close()


def test_agent_in_the_far_end_s_home_is_named_relative_to_it():
    device = Device("pi4", "ssh", host="pi4", agent="~/bin/edgepress-agent", home="/data/my agent")
    assert attach_command(device) == ("./bin/edgepress-agent", "attach", "--home", "/data/my agent")


def test_words_of_the_command_arrive_as_they_are(board, opened, script):
    agent = script('for word; do echo "<$word>"; done')
    stream = opened(replace(board, agent=agent, home="/a b/$HOME;id")).open_stream()
    assert [stream.read_line(10) for _ in range(3)] == [b"<attach>\n", b"<--home>\n", b"</a b/$HOME;id>\n"]


def test_lines_go_both_ways_whole(board, opened, script):
    stream = opened(replace(board, agent=script("exec cat"))).open_stream()
    long = b"x" * 300_000 + b"\n"
    stream.write_line(b"one\n" + long)
    assert [stream.read_line(10), stream.read_line(10)] == [b"one\n", long]


def test_missing_agent_is_told_with_what_to_do(board, opened):
    message = failure(opened(replace(board, agent="/no/such/edgepress-agent")))
    assert message.startswith(f"no agent on pi4 ({board.user}@127.0.0.1:{board.port}): ")
    assert "No such file or directory (exit status 127)" in message
    assert message.endswith('run "edgepress device provision pi4"')


def test_agent_that_fails_at_the_start_is_quoted_in_one_line(board, opened, script):
    message = failure(opened(replace(board, agent=script(r"printf 'no\033[31m\nroom' >&2; exit 3"))))
    assert "no [31m room (exit status 3)" in message


def test_agent_that_ends_after_it_has_spoken_is_told_as_gone(board, opened, script):
    stream = opened(replace(board, agent=script("echo hello; exit 1"))).open_stream()
    assert stream.read_line(10) == b"hello\n"
    with pytest.raises(DeviceUnreachable, match=r"the agent on pi4 .* has gone: it ended with exit status 1"):
        stream.read_line(10)


def test_agent_that_says_nothing_is_given_up_in_time(board, opened, script):
    stream = opened(replace(board, agent=script("exec cat"))).open_stream()
    with pytest.raises(DeviceUnreachable, match=r"the agent on pi4 .* does not answer"):
        stream.read_line(0.05)


def test_endless_line_of_the_agent_is_refused(board, opened, script):
    message = failure(opened(replace(board, agent=script("exec tr '\\0' x < /dev/zero"))), DeviceError)
    assert "the agent sent a line of more than 1048576 bytes" in message


def test_cut_connection_is_told_and_the_next_call_connects_again(sshd, board, opened, script):
    link = opened(replace(board, agent=script("echo hello; exec cat")))
    stream = link.open_stream()
    assert stream.read_line(10) == b"hello\n"
    assert sshd.cut_connections() == 1
    with pytest.raises(DeviceUnreachable, match=r"the connection to pi4 .* was cut"):
        stream.read_line(None)
    assert link.open_stream().read_line(10) == b"hello\n"


def test_far_end_that_falls_silent_is_noticed_without_a_deadline(sshd, board, script, monkeypatch):
    monkeypatch.setattr(ssh_module, "PROBE_TIMEOUT_S", 0.2)
    target = replace(ssh_target(board), keepalive_s=0.2)
    link = SshTransport(target, (script("echo hello; exec cat"),))
    stream = link.open_stream()
    assert stream.read_line(10) == b"hello\n"
    assert sshd.cut_connections(signal.SIGSTOP) == 1
    with pytest.raises(DeviceUnreachable, match=r"gives no sign of life for 0\.4 s"):
        stream.read_line(None)
    link.close()


def test_whoever_waits_for_a_line_is_woken_from_another_thread_and_the_connection_stays(sshd, board, opened, script):
    link = opened(replace(board, agent=script("echo hello; exec cat")))
    stream = link.open_stream()
    assert stream.read_line(10) == b"hello\n"
    threading.Timer(0.2, stream.interrupt).start()
    with pytest.raises(DeviceUnreachable):
        stream.read_line(None)
    stream.close()
    stream.interrupt()
    assert link.open_stream().read_line(10) == b"hello\n"
    assert sshd.cut_connections() == 1


def test_agent_that_is_long_busy_is_waited_for_while_the_far_end_lives(board, script):
    target = replace(ssh_target(board), keepalive_s=0.05)
    link = SshTransport(target, (script("sleep 0.4; echo done"),))
    assert link.open_stream().read_line(None) == b"done\n"
    link.close()


# Moving files


def test_file_is_sent_whole_and_its_progress_told(link, source, tmp_path):
    told = []
    link.put_file(source, str(tmp_path / "target"), 0, told.append)
    assert (tmp_path / "target").read_bytes() == CONTENT
    assert sum(told) == len(CONTENT)


def test_file_is_sent_on_from_an_offset_and_what_is_there_behind_it_dropped(link, source, tmp_path):
    target = tmp_path / "target"
    target.write_bytes(CONTENT[:1000] + b"?" * 2 * len(CONTENT))
    told = []
    link.put_file(source, str(target), 1000, told.append)
    assert target.read_bytes() == CONTENT
    assert sum(told) == len(CONTENT) - 1000


def test_empty_file_is_sent_and_fetched(link, tmp_path):
    (tmp_path / "empty").touch()
    link.put_file(tmp_path / "empty", str(tmp_path / "target"), 0, nothing)
    link.get_file(str(tmp_path / "target"), tmp_path / "back", 0, nothing)
    assert (tmp_path / "back").read_bytes() == b""


def test_folder_missing_at_the_far_end_is_named(link, source, tmp_path):
    with pytest.raises(DeviceError, match=r"pi4 .*: .*/missing/target: No such file"):
        link.put_file(source, str(tmp_path / "missing" / "target"), 0, nothing)


def test_full_disk_of_the_board_is_told_with_what_is_missing(link, small_disk, tmp_path):
    (tmp_path / "large").write_bytes(bytes(3 << 20))
    with pytest.raises(DeviceFull) as full:
        link.put_file(tmp_path / "large", str(small_disk / "blob"), 0, nothing)
    assert f"has no room for blob: {(3 << 20) - (small_disk / 'blob').stat().st_size} bytes needed, 0 free" in str(
        full.value
    )


def test_disk_that_is_full_at_the_last_byte_is_noticed(link, small_disk, tmp_path):
    (small_disk / "filler").write_bytes(bytes((1 << 20) - 4096))
    (tmp_path / "two_pages").write_bytes(bytes(4097))
    with pytest.raises(DeviceFull, match="has no room for blob"):
        link.put_file(tmp_path / "two_pages", str(small_disk / "blob"), 0, nothing)


def test_file_is_fetched_whole_and_its_progress_told(link, source, tmp_path):
    told = []
    link.get_file(str(source), tmp_path / "copy", len(CONTENT), told.append)
    assert (tmp_path / "copy").read_bytes() == CONTENT
    assert sum(told) == len(CONTENT)


def test_missing_file_and_one_of_another_size_leave_nothing_behind(link, source, tmp_path):
    folder = tmp_path / "fetched"
    folder.mkdir()
    with pytest.raises(DeviceError, match="/gone: No such file"):
        link.get_file(str(tmp_path / "gone"), folder / "copy", 1, nothing)
    with pytest.raises(DeviceError, match=rf"has {len(CONTENT)} bytes; the agent announced 5"):
        link.get_file(str(source), folder / "copy", 5, nothing)
    assert list(folder.iterdir()) == []


def test_fetch_onto_a_full_disk_leaves_nothing_half_written(link, small_disk, tmp_path):
    (tmp_path / "large").write_bytes(bytes(3 << 20))
    with pytest.raises(StorageError, match=f"disk full while writing {small_disk}/copy: .* MiB free; make room"):
        link.get_file(str(tmp_path / "large"), small_disk / "copy", 3 << 20, nothing)
    assert list(small_disk.iterdir()) == []


def test_interrupted_fetch_leaves_the_old_file_and_the_next_one_is_right(link, source, tmp_path):
    def interrupt(_):
        raise KeyboardInterrupt

    (tmp_path / "fetched").mkdir()
    copy = tmp_path / "fetched" / "copy"
    copy.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt):
        link.get_file(str(source), copy, len(CONTENT), interrupt)
    assert [path.read_bytes() for path in copy.parent.iterdir()] == [b"old"]
    link.get_file(str(source), copy, len(CONTENT), nothing)
    assert copy.read_bytes() == CONTENT


@pytest.mark.parametrize("direction", ["put", "get"])
@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_connection_cut_in_a_transfer_is_told_and_the_next_transfer_connects_again(
    sshd, board, link, tmp_path, direction
):
    size = 8 << 20
    large, there, cuts = tmp_path / "large", tmp_path / "there", []
    large.write_bytes(bytes(size))
    (tmp_path / "fetched").mkdir()

    def cut_once(_):
        if not cuts:
            cuts.append(sshd.cut_connections())

    def transfer(progress):
        if direction == "put":
            link.put_file(large, str(there), 0, progress)
        else:
            link.get_file(str(large), tmp_path / "fetched" / "copy", size, progress)

    with pytest.raises(DeviceUnreachable, match=r"the connection to pi4 .* was cut"):
        transfer(cut_once)
    assert cuts == [1]
    assert list((tmp_path / "fetched").iterdir()) == []
    transfer(nothing)


def test_channel_that_ends_is_not_taken_for_a_file_that_ended(link, tmp_path, monkeypatch):
    # paramiko asks for the rest bit by bit once all that it has asked for so far is here, which may be before the end.
    monkeypatch.setattr(sftp_module, "_ask_ahead", lambda source, size_bytes: None)
    (tmp_path / "large").write_bytes(bytes(8 << 20))

    def end(_):
        link._link._sftp.get_channel().shutdown_write()

    with pytest.raises(DeviceUnreachable, match=r"the connection to pi4 .* was cut"):
        link.get_file(str(tmp_path / "large"), tmp_path / "copy", 8 << 20, end)
    assert not (tmp_path / "copy").exists()
    link.get_file(str(tmp_path / "large"), tmp_path / "copy", 8 << 20, nothing)


@pytest.mark.parametrize("direction", ["put", "get"])
def test_server_of_files_that_ends_alone_is_a_cut(link, tmp_path, direction):
    large, there = tmp_path / "large", tmp_path / "there"
    large.write_bytes(bytes(8 << 20))

    def end(_):
        link._link._sftp.get_channel().close()

    def transfer(progress):
        if direction == "put":
            link.put_file(large, str(there), 0, progress)
        else:
            link.get_file(str(large), there, 8 << 20, progress)

    with pytest.raises(DeviceUnreachable, match=r"the connection to pi4 .* was cut"):
        transfer(end)
    transfer(nothing)
    assert there.stat().st_size == 8 << 20


def test_many_failed_transfers_and_the_agent_share_one_connection(sshd, board, opened, script, source, tmp_path):
    link = opened(replace(board, agent=script("exec cat")))
    stream = link.open_stream()
    # sshd allows ten channels at a time.
    for _ in range(15):
        with pytest.raises(DeviceError, match="No such file"):
            link.get_file("/no/such/file", tmp_path / "copy", 1, nothing)
    link.put_file(source, str(tmp_path / "target"), 0, nothing)
    stream.write_line(b"still here\n")
    assert stream.read_line(10) == b"still here\n"
    assert sshd.cut_connections() == 1


def test_closing_twice_is_safe_and_a_later_call_opens_again(link, source, tmp_path):
    link.close()
    link.put_file(source, str(tmp_path / "target"), 0, nothing)
    link.close()
    link.close()
    link.put_file(source, str(tmp_path / "target"), 0, nothing)
