"""Whether the processor is a program: then answers are right, and times are not times."""

from __future__ import annotations

from pathlib import Path

from device_agent.sensors.files import read_field, read_name, read_text

# What QEMU names itself by: the board "virt" in its device tree, everything else in the firmware's tables.
_DEVICE_TREE = "linux,dummy-virt"
_FIRMWARE = "QEMU"
# "edgepress board" boots with this word, since the device tree of an emulated Raspberry Pi is that of a real one.
BOOT_WORD = "edgepress.emulated"


def is_emulated(root: Path, machine: str) -> bool:
    """Tell whether the processor of the system below ``root``, of architecture ``machine``, is emulated.

    A virtual machine that runs on the processor itself (KVM) is not. Where its firmware does not say so, the device's
    file has to: ``emulated: false``.
    """
    if BOOT_WORD in (read_text(root / "proc/cmdline") or "").split():
        return True
    return _is_foreign(root, machine) or (_is_qemu(root) and not _is_kvm(root))


def _is_foreign(root: Path, machine: str) -> bool:
    """Tell whether an ARM program runs on an x86 kernel, as in a container with qemu-user."""
    return machine.startswith(("aarch64", "arm")) and read_field(root / "proc/cpuinfo", "vendor_id", ":") is not None


def _is_qemu(root: Path) -> bool:
    compatible = (read_text(root / "proc/device-tree/compatible") or "").split("\0")
    return _DEVICE_TREE in compatible or read_name(root / "sys/class/dmi/id/sys_vendor") == _FIRMWARE


def _is_kvm(root: Path) -> bool:
    """Tell by the clock that KVM offers on x86, or by the product that QEMU calls an ARM machine with KVM."""
    clocks = read_text(root / "sys/devices/system/clocksource/clocksource0/available_clocksource") or ""
    product = read_name(root / "sys/class/dmi/id/product_name") or ""
    return "kvm-clock" in clocks.split() or product.startswith("KVM")
