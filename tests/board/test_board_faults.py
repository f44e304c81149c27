"""What goes wrong in the field, on a real arm64 system: a bad network, a full disk, a wrong clock."""

import json
import re
import time

import pytest
from board_experiments import write_fashion_mnist, write_subset

pytestmark = [pytest.mark.board, pytest.mark.tensorflow, pytest.mark.timeout(2 * 3600)]

ONE = {"float32": []}
DROPPED = re.compile(r"dropped (\d+)")


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """A function that writes a short experiment whose job is new each time."""
    folder = tmp_path_factory.mktemp("experiment")
    data = write_subset(folder, scored=20, trained=2000)
    count = iter(range(1000))

    def write():
        return write_fashion_mnist(folder, "litert", data, variants=ONE, seed=next(count))

    return write


def run(pi, path, tmp_path, code: int = 0) -> str:
    return pi.edgepress("run", str(path), "--output", str(tmp_path / "runs"), code=code)


@pytest.fixture
def bad_network(provisioned):
    """Two hundred milliseconds and three packets lost of a hundred, for all that the board sends."""
    netem = ("sudo", "-n", "tc", "qdisc")
    provisioned.ssh(*netem, "add", "dev", "eth0", "root", "netem", "delay", "200ms", "20ms", "loss", "3%")
    yield provisioned
    provisioned.ssh(*netem, "del", "dev", "eth0", "root")


def test_with_delay_and_loss_all_is_as_without_but_slower(bad_network, experiment, tmp_path):
    begin = time.monotonic()
    bad_network.ssh("true")
    reached_s = time.monotonic() - begin
    # An SSH connection takes several round trips.
    assert reached_s > 1
    begin = time.monotonic()
    bad_network.edgepress("device", "check", "emulated-pi")
    checked_s = time.monotonic() - begin
    printed = run(bad_network, experiment(), tmp_path)
    assert "float32 may ship" in printed
    assert bad_network.blobs()["wrong"] == []
    run_s = time.monotonic() - begin - checked_s
    counted = bad_network.ssh("/sbin/tc", "-s", "qdisc", "show", "dev", "eth0")
    assert "netem" in counted and int(DROPPED.search(counted).group(1)) > 0, counted
    bad_network.log(
        f"200 ms and 3 % loss: reached in {reached_s:.1f} s, checked in {checked_s:.0f} s, a run in {run_s:.0f} s; "
        f"{DROPPED.search(counted).group(1)} packets of the board's were lost"
    )


@pytest.fixture
def full_disk(provisioned):
    """A disk with a MiB left."""
    provisioned.fill_disk(left_bytes=1 << 20)
    yield provisioned
    provisioned.empty_disk()


def test_a_full_disk_is_told_before_anything_is_sent_and_with_room_the_run_goes_on(full_disk, tmp_path):
    data = write_subset(tmp_path, scored=1500, trained=2000)
    path = write_fashion_mnist(tmp_path, "litert", data, variants=ONE, limits={"block_timeout_s": 3600})
    blobs = full_disk.blobs()
    printed = run(full_disk, path, tmp_path, code=1)
    assert "emulated-pi has no room: " in printed
    assert full_disk.blobs() == blobs
    assert (blobs["wrong"], blobs["begun_bytes"]) == ([], 0)
    full_disk.log(f"full disk: {printed.strip().splitlines()[-1]}")
    full_disk.empty_disk()
    assert "float32 may ship" in run(full_disk, path, tmp_path)


@pytest.mark.parametrize("stamp", ["1999-01-01 00:00:00", "2037-12-31 00:00:00"])
def test_a_wrong_clock_disturbs_no_job(provisioned, experiment, tmp_path, stamp):
    provisioned.ssh("sudo", "-n", "date", "--utc", f"--set='{stamp}'")
    try:
        printed = run(provisioned, experiment(), tmp_path)
        assert "float32 may ship" in printed
        [record] = (tmp_path / "runs").glob("*/report.json")
        measured = json.loads(record.read_text())["measured_utc"]
        provisioned.log(f"clock set to {stamp}: measured from {measured[0]} to {measured[1]}")
        assert measured[0].startswith(stamp[:4])
    finally:
        provisioned.ssh("sudo", "-n", "date", "--utc", f"--set=@{time.time():.0f}")


def test_the_faults_left_no_other_trace(provisioned):
    assert provisioned.blobs()["wrong"] == []
    assert "broken" not in json.dumps(provisioned.jobs())
