"""The transport to this machine: a real agent process, and files copied."""

import os
import signal
import threading

import pytest
from processes import processes_with

from device_agent.protocol import PROTOCOL_VERSION, Hello, decode, from_json
from pipeline.devices.inventory import LOCAL, Device
from pipeline.devices.local import LocalTransport, local_transport
from pipeline.devices.transport import open_transport
from pipeline.errors import DeviceError, DeviceFull, DeviceUnreachable, StorageError

CONTENT = bytes(range(256)) * 10_000


@pytest.fixture
def link():
    """The transport to the built-in device."""
    return open_transport(LOCAL)


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "source"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def started():
    """A function that starts a shell script in the agent's place and returns the stream to it."""
    streams = []

    def start(body):
        streams.append(LocalTransport("here", ("/bin/sh", "-c", body)).open_stream())
        return streams[-1]

    yield start
    for stream in streams:
        stream.close()


def nothing(_):
    pass


def test_agent_is_started_in_the_user_s_data_folder_and_says_hello(home, link):
    agent_home = home / ".local" / "share" / "edgepress" / "agent"
    try:
        stream = link.open_stream()
        hello = from_json(Hello, decode(stream.read_line(30))["params"])
        assert (hello.protocol, hello.home) == (PROTOCOL_VERSION, str(agent_home))
        stream.close()
    finally:
        for process in processes_with(str(agent_home)):
            os.kill(process, signal.SIGKILL)


def test_device_s_own_agent_and_home_are_used(home):
    agent = home / "my-agent"
    agent.write_text('#!/bin/sh\necho "$@"\n')
    agent.chmod(0o755)
    stream = local_transport(Device("here", "local", agent="~/my-agent", home="/some/where")).open_stream()
    assert stream.read_line(10) == b"attach --home /some/where\n"
    stream.close()


def test_agent_that_cannot_be_started_is_named():
    with pytest.raises(DeviceUnreachable, match="no agent on here: /no/such/agent: No such file or directory"):
        LocalTransport("here", ("/no/such/agent", "attach")).open_stream()


def test_agent_that_fails_at_the_start_is_quoted_with_what_to_do(started):
    with pytest.raises(DeviceUnreachable) as failed:
        started("echo no room >&2; exit 3").read_line(10)
    assert str(failed.value).startswith("no agent on here: no room (exit status 3); install edgepress-agent there")


def test_agent_that_was_killed_is_told_as_gone(started):
    stream = started("echo $$; exec sleep 60")
    os.kill(int(stream.read_line(10)), signal.SIGKILL)
    with pytest.raises(DeviceUnreachable, match="the agent on here has gone: it ended with exit status -9"):
        stream.read_line(None)


def test_line_to_an_agent_that_has_ended_is_refused(started):
    stream = started("exec 0<&- 1>&-; exit 4")
    with pytest.raises(DeviceUnreachable, match="exit status 4"):
        stream.read_line(10)
    with pytest.raises(DeviceUnreachable, match="exit status 4"):
        stream.write_line(b"anyone there\n")


def test_lines_go_both_ways_whole(started):
    stream = started("exec cat")
    long = b"x" * 100_000 + b"\n"
    stream.write_line(b"one\n" + long)
    assert [stream.read_line(10), stream.read_line(10)] == [b"one\n", long]


def test_agent_that_says_nothing_is_given_up_in_time(started):
    with pytest.raises(DeviceUnreachable, match="the agent on here does not answer"):
        started("exec cat").read_line(0.05)


def test_whoever_waits_for_a_line_is_woken_from_another_thread(started):
    stream = started("echo hello; exec cat")
    assert stream.read_line(10) == b"hello\n"
    threading.Timer(0.2, stream.interrupt).start()
    with pytest.raises(DeviceUnreachable):
        stream.read_line(None)
    stream.close()
    stream.interrupt()


def test_closed_stream_leaves_no_process_and_may_be_closed_again(started, tmp_path):
    stream = started(f"echo ready; cat; : {tmp_path}")
    assert stream.read_line(10) == b"ready\n"
    stream.close()
    assert processes_with(str(tmp_path)) == []
    stream.close()


def test_ctrl_c_in_the_terminal_does_not_reach_the_agent(started):
    process = int(started("echo $$; exec cat").read_line(10))
    assert os.getsid(process) != os.getsid(0)


def test_file_is_copied_there_and_back_whole(link, source, tmp_path):
    sent, fetched = [], []
    link.put_file(source, str(tmp_path / "there"), 0, sent.append)
    link.get_file(str(tmp_path / "there"), tmp_path / "back", len(CONTENT), fetched.append)
    assert (tmp_path / "back").read_bytes() == CONTENT
    assert sum(sent) == sum(fetched) == len(CONTENT)


def test_file_is_sent_on_from_an_offset_and_what_is_there_behind_it_dropped(link, source, tmp_path):
    target = tmp_path / "target"
    target.write_bytes(CONTENT[:1000] + b"?" * 2 * len(CONTENT))
    link.put_file(source, str(target), 1000, nothing)
    assert target.read_bytes() == CONTENT


def test_missing_folder_is_named(link, source, tmp_path):
    with pytest.raises(DeviceError, match=r"local: .*/missing/target: No such file or directory"):
        link.put_file(source, str(tmp_path / "missing" / "target"), 0, nothing)


def test_full_disk_of_the_device_is_told(link, source, small_disk):
    with pytest.raises(DeviceFull, match=f"local has no room for blob in {small_disk}"):
        link.put_file(source, str(small_disk / "blob"), 0, nothing)


def test_fetch_onto_a_full_disk_leaves_nothing_half_written(link, source, small_disk):
    with pytest.raises(StorageError, match=f"disk full while writing {small_disk}/copy: .* MiB free; make room"):
        link.get_file(str(source), small_disk / "copy", len(CONTENT), nothing)
    assert list(small_disk.iterdir()) == []


def test_missing_file_and_one_of_another_size_leave_nothing_behind(link, source, tmp_path):
    folder = tmp_path / "fetched"
    folder.mkdir()
    with pytest.raises(DeviceError, match=r"local: .*/gone: No such file or directory"):
        link.get_file(str(tmp_path / "gone"), folder / "copy", 1, nothing)
    with pytest.raises(DeviceError, match=f"has {len(CONTENT)} bytes; the agent announced 5"):
        link.get_file(str(source), folder / "copy", 5, nothing)
    assert list(folder.iterdir()) == []


def test_file_that_shrinks_while_it_is_fetched_leaves_nothing_behind(link, source, tmp_path):
    folder = tmp_path / "fetched"
    folder.mkdir()
    with pytest.raises(DeviceError, match="changed while it was read: 1048576 of 2560000 bytes came"):
        link.get_file(str(source), folder / "copy", len(CONTENT), lambda _: os.truncate(source, 0))
    assert list(folder.iterdir()) == []


def test_interrupted_fetch_leaves_the_old_file(link, source, tmp_path):
    def interrupt(_):
        raise KeyboardInterrupt

    (tmp_path / "fetched").mkdir()
    copy = tmp_path / "fetched" / "copy"
    copy.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt):
        link.get_file(str(source), copy, len(CONTENT), interrupt)
    assert [path.read_bytes() for path in copy.parent.iterdir()] == [b"old"]
