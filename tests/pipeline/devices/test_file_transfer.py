"""Files by each transport: whole, resumed, refused."""

import os

import pytest
from boards import device_on

from pipeline.devices.ssh import ssh_transport
from pipeline.errors import DeviceError, DeviceFull, DeviceUnreachable, StorageError

CONTENT = os.urandom(3_000_001)


class Tally:
    """Adds up what a transfer reports."""

    def __init__(self):
        self.bytes = 0

    def __call__(self, size):
        self.bytes += size


@pytest.fixture
def local_file(tmp_path):
    path = tmp_path / "local"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def remote(tmp_path):
    return tmp_path / "remote"


def test_a_file_arrives_as_it_was(transport, local_file, remote):
    tally = Tally()
    transport.put_file(local_file, str(remote), 0, tally)
    assert remote.read_bytes() == CONTENT
    assert tally.bytes == len(CONTENT)


def test_a_shorter_file_takes_the_place_of_a_longer_one(transport, local_file, remote):
    remote.write_bytes(CONTENT + b"more")
    transport.put_file(local_file, str(remote), 0, Tally())
    assert remote.read_bytes() == CONTENT


def test_only_the_rest_is_sent_and_what_lies_behind_is_dropped(transport, local_file, remote):
    remote.write_bytes(CONTENT[:1_000_000] + b"something else" * 1_000_000)
    tally = Tally()
    transport.put_file(local_file, str(remote), 1_000_000, tally)
    assert remote.read_bytes() == CONTENT
    assert tally.bytes == len(CONTENT) - 1_000_000


@pytest.mark.parametrize("size", [0, 1, 32768, 65536])
def test_a_file_of_any_size_goes_there_and_back(transport, tmp_path, size):
    (tmp_path / "a").write_bytes(CONTENT[:size])
    transport.put_file(tmp_path / "a", str(tmp_path / "b"), 0, Tally())
    transport.get_file(str(tmp_path / "b"), tmp_path / "c", size, Tally())
    assert (tmp_path / "c").read_bytes() == CONTENT[:size]


def test_a_full_disk_on_the_device_is_told(transport, local_file, small_disk):
    with pytest.raises(DeviceFull, match="has no room for part"):
        transport.put_file(local_file, str(small_disk / "part"), 0, Tally())


def test_a_last_piece_that_does_not_fit_is_told_too(transport, tmp_path, small_disk):
    (small_disk / "other").write_bytes(bytes((1 << 20) - 65536))
    (tmp_path / "a").write_bytes(bytes(65536 + 1))
    with pytest.raises(DeviceFull):
        transport.put_file(tmp_path / "a", str(small_disk / "part"), 0, Tally())


def test_a_full_disk_here_leaves_nothing_half_written(transport, local_file, small_disk):
    with pytest.raises(StorageError, match=r"small/f cannot be written: No space left on device"):
        transport.get_file(str(local_file), small_disk / "f", len(CONTENT), Tally())
    assert list(small_disk.iterdir()) == []


def test_a_folder_that_is_not_there_is_named(transport, local_file, tmp_path):
    with pytest.raises(DeviceError, match=r"/none/part: No such file"):
        transport.put_file(local_file, str(tmp_path / "none" / "part"), 0, Tally())
    with pytest.raises(DeviceError, match=r"/none/part: No such file"):
        transport.get_file(str(tmp_path / "none" / "part"), tmp_path / "x", 1, Tally())


def test_a_file_of_another_size_than_announced_is_refused(transport, local_file, tmp_path):
    with pytest.raises(DeviceError, match="has 3000001 bytes; the agent announced 3000000"):
        transport.get_file(str(local_file), tmp_path / "x", 3_000_000, Tally())
    assert not (tmp_path / "x").exists()


@pytest.mark.sshd
@pytest.mark.parametrize("direction", ["put", "get"])
def test_a_connection_that_is_cut_in_mid_transfer_is_told_and_the_next_transfer_works(
    ssh, sshd, local_file, remote, direction
):
    def cut(size):
        sshd.cut_connections()

    with pytest.raises(DeviceUnreachable, match=r"the connection to pi4 .* was cut"):
        if direction == "put":
            ssh.put_file(local_file, str(remote), 0, cut)
        else:
            ssh.get_file(str(local_file), remote, len(CONTENT), cut)
    ssh.put_file(local_file, str(remote), 0, Tally())
    assert remote.read_bytes() == CONTENT


@pytest.mark.sshd
def test_what_is_interrupted_does_not_confuse_the_next_transfer(board, sshd, local_file, remote, tmp_path):
    transport = ssh_transport(device_on(sshd))

    def interrupt(size):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        transport.get_file(str(local_file), tmp_path / "x", len(CONTENT), interrupt)
    transport.get_file(str(local_file), tmp_path / "x", len(CONTENT), Tally())
    assert (tmp_path / "x").read_bytes() == CONTENT
    transport.close()
