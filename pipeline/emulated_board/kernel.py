"""The kernel as QEMU boots it: unpacked from its tar, with a Raspberry Pi's device tree, and an initrd of our own."""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pipeline.emulated_board import tools
from pipeline.emulated_board.commands import run
from pipeline.errors import EmulatorError

DEVICE_TREE = "bcm2837-rpi-3-b.dtb"
# In the order in which they are loaded; what one needs comes before it.
_VIRT = ("virtio_mmio", "virtio_pci", "virtio_blk", "virtio_net", "virtio_rng", "ext4", "crc32c_generic")
_RASPI = (
    *("fixed", "gpio_regulator", "gpio_raspberrypi_exp", "bcm2835_dma", "clk_raspberrypi", "raspberrypi_hwmon"),
    *("bcm2835", "sdhci_iproc", "bcm2835_thermal", "bcm2835_rng", "dwc2", "phy_generic", "usbnet", "cdc_ether"),
    *("rndis_host", "sd_mod", "usb_storage"),
)

# The modules stand in /order, the disk on the kernel's command line.
_INIT = """\
#!/bin/busybox sh
/bin/busybox mount -t devtmpfs d /dev
/bin/busybox mount -t proc p /proc
/bin/busybox mount -t sysfs s /sys
while read module; do /bin/busybox insmod $module 2>/dev/null; done < /order
root=/dev/vda
for word in $(/bin/busybox cat /proc/cmdline); do case $word in root=*) root=${word#root=};; esac; done
tries=0
while [ ! -b $root ] && [ $tries -lt 600 ]; do /bin/busybox usleep 100000; tries=$((tries + 1)); done
/bin/busybox mount -t ext4 $root /mnt || { echo "there is no disk $root"; exec /bin/busybox poweroff -f; }
/bin/busybox umount /proc /sys
/bin/busybox mount -o move /dev /mnt/dev
exec /bin/busybox switch_root /mnt /sbin/init
"""


@dataclass(frozen=True)
class Kernel:
    """A kernel below ``folder``: ``boot/vmlinuz``, ``lib/modules/<version>``, ``dtb`` and ``bin/busybox``."""

    folder: Path
    version: str

    @property
    def image(self) -> Path:
        """What QEMU is given as the kernel."""
        return self.folder / "vmlinuz"

    @property
    def device_tree(self) -> Path:
        """The device tree of a Raspberry Pi 3."""
        return self.folder / DEVICE_TREE

    @property
    def busybox(self) -> Path:
        """A static busybox for arm64."""
        return self.folder / "busybox"

    @property
    def modules(self) -> Path:
        """The folder of the modules."""
        return self.folder / "lib" / "modules" / self.version


def unpack_kernel(tar: Path, folder: Path, log: Path) -> Kernel:
    """Unpack what a board needs of the kernel's tar below ``folder``.

    Raises:
        EmulatorError: if something that it needs is not in there.
    """
    version = ""
    with tarfile.open(tar) as archive:
        for member in archive:
            name = _plain(member.name)
            target = _target(name)
            source = archive.extractfile(member) if target and member.isreg() else None
            if source is None:
                continue
            path = folder / target
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as out:
                shutil.copyfileobj(source, out)
            if target == "vmlinuz":
                version = name.removeprefix("boot/vmlinuz-")
    kernel = Kernel(folder, version)
    missing = [path.name for path in (kernel.image, kernel.busybox, kernel.device_tree) if not path.is_file()]
    if missing:
        raise EmulatorError(f"{tar} has no {', '.join(missing)}")
    run([tools.find("depmod"), "-b", str(folder), version], log)
    return kernel


def write_initrd(kernel: Kernel, path: Path, log: Path) -> None:
    """Write a cpio with busybox and the modules that lead to the disk, loaded one by one.

    Raises:
        EmulatorError: if cpio fails.
    """
    folder = path.with_name(f"{path.name}.d")
    for name in ("bin", "dev", "proc", "sys", "mnt", "m"):
        (folder / name).mkdir(parents=True)
    shutil.copyfile(kernel.busybox, folder / "bin" / "busybox")
    order = load_order(kernel.modules, (*_VIRT, *_RASPI))
    for module in order:
        shutil.copyfile(kernel.modules / module, folder / "m" / PurePosixPath(module).name)
    (folder / "order").write_text("".join(f"/m/{PurePosixPath(module).name}\n" for module in order))
    (folder / "init").write_text(_INIT)
    for program in (folder / "init", folder / "bin" / "busybox"):
        program.chmod(0o755)
    names = "\n".join(sorted(str(each.relative_to(folder)) for each in folder.rglob("*")))
    command = [tools.find("cpio"), "--create", "--format=newc", "--quiet", "--owner=+0:+0", f"--file={path.absolute()}"]
    run(command, log, stdin=f".\n{names}\n".encode(), cwd=folder)
    shutil.rmtree(folder)


def load_order(modules: Path, names: Iterable[str]) -> list[str]:
    """Return the files, below ``modules``, of the modules ``names`` and of all that they need, that first.

    What is not a module is built into the kernel, and left out.
    """
    needs = {}
    for line in (modules / "modules.dep").read_text().splitlines():
        file, _, needed = line.partition(":")
        # modules.dep(5): the last named is needed by all before it.
        needs[PurePosixPath(file).stem.replace("-", "_")] = [*reversed(needed.split()), file]
    return list(dict.fromkeys(file for name in names for file in needs.get(name, ())))


def _plain(name: str) -> str:
    return name.removeprefix("./").removeprefix("usr/")


def _target(name: str) -> str:
    """Return where a file of the tar goes below the kernel's folder; nowhere, if it is not needed."""
    if name.startswith("boot/vmlinuz-"):
        return "vmlinuz"
    if name.startswith("lib/modules/"):
        return name
    if name.startswith("lib/linux-image-") and name.endswith(f"/broadcom/{DEVICE_TREE}"):
        return DEVICE_TREE
    return "busybox" if name == "bin/busybox" else ""
