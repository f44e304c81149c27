"""The other machine: a Raspberry Pi 3 by its device tree and its thermal zone, which the agent tells."""

import time

import pytest
from emulated_pi import PROVISION

pytestmark = [pytest.mark.board, pytest.mark.timeout(3 * 3600)]


@pytest.fixture(scope="module")
def raspi(pi):
    """A bare board of that kind; afterwards there is the usual one again."""
    pi.edgepress("board", "down")
    begin = time.monotonic()
    pi.edgepress("board", "up", "--machine", "raspi3b")
    pi.log(f"raspi3b: first start {time.monotonic() - begin:.0f} s")
    yield pi
    pi.edgepress("board", "down", "--cut")
    pi.edgepress("board", "up", "--machine", "virt")


def test_its_device_tree_is_that_of_a_raspberry_pi_3(raspi):
    assert raspi.ssh("cat", "/proc/device-tree/model").startswith("Raspberry Pi 3 Model B")
    assert "thermal_zone0" in raspi.ssh("ls", "/sys/class/thermal").split()


def test_what_was_synced_is_there_after_a_power_cut(raspi):
    raspi.put("/home/pi/kept", b"content")
    raspi.ssh("sync")
    raspi.edgepress("board", "down", "--cut")
    raspi.log(f"raspi3b: cold boot after a power cut {raspi.up():.0f} s")
    assert raspi.ssh("cat", "/home/pi/kept") == "content"


def test_the_agent_tells_its_model_and_its_temperature_and_that_it_is_emulated(raspi):
    raspi.edgepress(*PROVISION)
    told = " ".join(raspi.edgepress("device", "check", "emulated-pi").split())
    assert "Raspberry Pi 3 Model B" in told
    assert "emulated: no time is reported" in told
    assert " C (" in told, "the temperature of the zone"
