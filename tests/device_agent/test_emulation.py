"""What an emulated processor is known by, and what is none."""

from pathlib import Path

import pytest

from device_agent.protocol import DeviceInfo, from_json, to_json
from device_agent.sensors import read_device
from device_agent.sensors.emulation import is_emulated

BOARDS = Path(__file__).parents[1] / "data" / "boards"
VIRT = {"proc/device-tree/compatible": "linux,dummy-virt\0"}
FIRMWARE = {"sys/class/dmi/id/sys_vendor": "QEMU\n"}
CLOCKS = "sys/devices/system/clocksource/clocksource0/available_clocksource"


def root(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.mark.parametrize(
    ("files", "machine"),
    [
        (VIRT, "aarch64"),
        ({**FIRMWARE, CLOCKS: "tsc hpet acpi_pm\n"}, "x86_64"),
        ({**FIRMWARE, "sys/class/dmi/id/product_name": "QEMU Virtual Machine\n"}, "aarch64"),
        ({"proc/cmdline": "console=ttyAMA0 edgepress.emulated root=/dev/mmcblk0\n"}, "aarch64"),
        ({"proc/cpuinfo": "processor\t: 0\nvendor_id\t: GenuineIntel\n"}, "aarch64"),
        ({"proc/cpuinfo": "processor\t: 0\nvendor_id\t: AuthenticAMD\n"}, "armv7l"),
    ],
    ids=["virt", "x86 without KVM", "ARM firmware", "the word at boot", "qemu-user", "qemu-user of 32 bits"],
)
def test_an_emulated_processor_is_known(files, machine, tmp_path):
    assert is_emulated(root(tmp_path, files), machine)


@pytest.mark.parametrize(
    ("files", "machine"),
    [
        ({}, "aarch64"),
        ({**FIRMWARE, CLOCKS: "tsc kvm-clock hpet\n"}, "x86_64"),
        ({**FIRMWARE, **VIRT, "sys/class/dmi/id/product_name": "KVM Virtual Machine\n"}, "aarch64"),
        ({"proc/cpuinfo": "processor\t: 0\nvendor_id\t: GenuineIntel\n"}, "x86_64"),
        ({"proc/cmdline": "root=/dev/vda not-edgepress.emulated\n"}, "aarch64"),
    ],
    ids=["nothing said", "x86 with KVM", "ARM with KVM", "x86 on x86", "another word"],
)
def test_a_virtual_machine_on_the_processor_itself_is_not_emulated(files, machine, tmp_path):
    assert not is_emulated(root(tmp_path, files), machine)


@pytest.mark.parametrize("board", sorted(path.name for path in BOARDS.iterdir() if path.is_dir()))
def test_no_real_board_is_taken_for_an_emulated_one(board):
    assert not is_emulated(BOARDS / board, "aarch64")
    assert not read_device(BOARDS / board).emulated


def test_a_board_says_that_it_is_emulated(tmp_path):
    assert read_device(root(tmp_path, VIRT)).emulated


def test_an_agent_that_does_not_say_so_yet_is_understood():
    told = to_json(DeviceInfo(None, "aarch64", 4, None, None, "6.1", "3.11.2", emulated=True))
    assert from_json(DeviceInfo, told).emulated
    del told["emulated"]
    assert not from_json(DeviceInfo, told).emulated
