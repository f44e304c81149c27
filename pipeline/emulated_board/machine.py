"""The machines that QEMU can be, and one QEMU: started, watched, ended, cut off.

Everything is on 127.0.0.1, and the guest has no way out (``restrict=on``). The disk honours what the guest flushes:
when QEMU is killed, what was flushed is there, and what the guest or QEMU still held in memory is gone, as when the
power is cut. With ``cache=none`` QEMU tells the guest of a write cache, and answers a flush once the host's disk has it
(qemu(1), -drive).
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from device_agent.sensors.emulation import BOOT_WORD
from pipeline.emulated_board import guest, tools
from pipeline.emulated_board.image import Image
from pipeline.errors import EmulatorError

PID, LOCK, QMP, CONSOLE = "qemu.pid", "qemu.lock", "qmp.sock", "console.log"
SNAPSHOT = "bare"
_ACCELERATOR = "tcg,thread=multi,tb-size=512"
_KERNEL_WORDS = ("mitigations=off", "net.ifnames=0", "quiet", "systemd.show_status=0", BOOT_WORD)
_PATIENCE_S = 10.0


@dataclass(frozen=True)
class Machine:
    """One of QEMU's boards: how it is asked for, how its disk and network hang on it, and whether it can be saved.

    ``drive`` says all of the disk but its file and format.
    """

    name: str
    arguments: tuple[str, ...]
    kernel_words: tuple[str, ...]
    drive: str
    disk_device: tuple[str, ...]
    network: str
    has_device_tree: bool
    has_snapshots: bool

    @property
    def disk_format(self) -> str:
        """The format of its disk: only qcow2 keeps snapshots."""
        return "qcow2" if self.has_snapshots else "raw"

    @property
    def disk(self) -> str:
        """The name of the file that is its disk."""
        return f"disk.{self.disk_format}"


MACHINES = {
    "virt": Machine(
        "virt",
        ("-cpu", "cortex-a72", "-smp", "2", "-m", "1024", "-device", "virtio-rng-device"),
        ("console=ttyAMA0", "root=/dev/vda"),
        "if=none,id=disk,cache=none",
        ("-device", "virtio-blk-device,drive=disk"),
        "virtio-net-device,netdev=net",
        has_device_tree=True,
        has_snapshots=True,
    ),
    # For its device tree and its thermal zone. No snapshots: not all of its devices can be saved. QEMU never flushes an
    # SD card: raw, what the card has taken is in the file, while qcow2 would keep its tables in a memory that dies.
    "raspi3b": Machine(
        "raspi3b",
        (),
        ("console=ttyAMA0,115200", "root=/dev/mmcblk0", "rootwait", "dwc_otg.fiq_fsm_enable=0"),
        "if=sd,cache=writeback",
        (),
        "usb-net,netdev=net",
        has_device_tree=False,
        has_snapshots=False,
    ),
}


def command(machine: Machine, image: Image, port: int, resume: bool) -> list[str]:
    """Return QEMU's command line: ``port`` of 127.0.0.1 leads to the board's sshd; ``resume`` from the snapshot.

    Names without a folder are in the board's folder, in which QEMU has to be started.
    """
    forward = f"hostfwd=tcp:127.0.0.1:{port}-{guest.ADDRESS}:22"
    return [
        tools.find("qemu-system-aarch64"),
        *("-M", machine.name, *machine.arguments, "-accel", _ACCELERATOR),
        *("-kernel", str(image.kernel), "-initrd", str(image.initrd)),
        *(() if machine.has_device_tree else ("-dtb", str(image.device_tree))),
        *("-append", " ".join((*machine.kernel_words, *_KERNEL_WORDS))),
        *("-drive", f"{machine.drive},file={machine.disk},format={machine.disk_format}", *machine.disk_device),
        *("-netdev", f"user,id=net,net=10.0.2.0/24,restrict=on,{forward}", "-device", machine.network),
        *("-display", "none", "-monitor", "none", "-serial", f"file:{CONSOLE}"),
        *("-qmp", f"unix:{QMP},server=on,wait=off", "-pidfile", PID, "-daemonize"),
        *(("-loadvm", SNAPSHOT) if resume else ()),
    ]


class Qemu:
    """The QEMU that runs, or may run, in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def is_running(self) -> bool:
        """Whether it runs: it holds a lock for as long as it does, however it ends."""
        with (self.folder / LOCK).open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def start(self, command: list[str]) -> None:
        """Start it by ``command``; it has its devices and goes on by itself when this returns.

        Raises:
            EmulatorError: with what it says when it cannot.
        """
        with (self.folder / LOCK).open("ab") as lock:
            # Held by others for an instant at most: whoever starts it has seen that it does not run.
            fcntl.flock(lock, fcntl.LOCK_EX)
            for left in (CONSOLE, PID):
                (self.folder / left).unlink(missing_ok=True)
            done = subprocess.run(
                command,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                pass_fds=[lock.fileno()],
                start_new_session=True,
            )
        if done.returncode:
            raise EmulatorError(f"QEMU did not start: {' '.join(done.stdout.split())}")

    def cut_power(self) -> None:
        """Kill it, as when somebody pulls the plug; do nothing when it does not run."""
        self._end(signal.SIGKILL, lambda: None, _PATIENCE_S)

    def shut_down(self, ask: Callable[[], None], patience_s: float) -> None:
        """``ask`` the board to end by itself, and end it when it has not done so in time."""
        if not self._end(None, ask, patience_s):
            self._end(signal.SIGTERM, lambda: None, _PATIENCE_S)

    def _end(self, number: signal.Signals | None, ask: Callable[[], None], patience_s: float) -> bool:
        """Return whether it has ended.

        Raises:
            EmulatorError: if it is just starting or ending.
        """
        process = self._process()
        if process is None:
            return True
        try:
            if number is not None:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(process, number)
            ask()
            return bool(select.select([process], [], [], patience_s)[0])
        finally:
            os.close(process)

    def _process(self) -> int | None:
        """Return a descriptor of the process that runs; None when it does not."""
        if not self.is_running:
            return None
        try:
            return os.pidfd_open(int((self.folder / PID).read_text()))
        except ProcessLookupError:
            return None
        except (FileNotFoundError, ValueError) as error:
            # Whoever starts it has the lock before QEMU writes its number, and QEMU removes that before it ends.
            raise EmulatorError("QEMU is just starting or ending; try again") from error
