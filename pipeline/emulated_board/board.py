"""The emulated board's life: up, down, reset, cut off from its power.

``<user data>/edgepress/board`` has its disk, its keys, and what it was made as.
"""

from __future__ import annotations

import fcntl
import json
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import platformdirs

from pipeline.cache import Cache, user_cache, write_text
from pipeline.devices.inventory import Device
from pipeline.emulated_board import guest, tools
from pipeline.emulated_board.commands import run
from pipeline.emulated_board.image import Image, find_or_build_image, image_key
from pipeline.emulated_board.keys import Keys, make_keys
from pipeline.emulated_board.machine import CONSOLE, MACHINES, QMP, SNAPSHOT, Machine, Qemu, command
from pipeline.emulated_board.qmp import connected
from pipeline.emulated_board.registration import HOST, NAME, device_at, register
from pipeline.errors import EmulatorError, UsageError

BOOT_S = 600.0
SHUT_DOWN_S = 120.0
LOGIN_S = 60.0

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Made:
    """What a board was made as: QEMU's machine, the port of 127.0.0.1 that leads to it, and the key of its image."""

    machine: str
    port: int
    image: str


class Board:
    """The board in ``folder``, whose images are kept in ``cache``; ``tell`` is told in words what goes on."""

    def __init__(self, folder: Path, cache: Cache, tell: Tell) -> None:
        self.folder = folder
        self._cache = cache
        self._tell = tell
        self._qemu = Qemu(folder)

    @property
    def is_running(self) -> bool:
        """Whether its QEMU runs."""
        return self.folder.is_dir() and self._qemu.is_running

    def up(self, machine: str | None = None) -> Device:
        """Start the board as it was left, or as another ``machine``, which is a new board; return it as a device.

        A new board's image is built when there is none; what it is after its first boot is what ``reset`` goes back to.

        Raises:
            UsageError: if this machine lacks a tool, or the board is up as another machine.
            EmulatorError: if it cannot be built, or does not come up.
        """
        made = self._made()
        tools.check(tools.TO_RUN if made and self._image(made).folder.is_dir() else {**tools.TO_RUN, **tools.TO_BUILD})
        with self._alone():
            made = self._made()  # another may have made it, or made it anew, while we waited
            keys = make_keys(self.folder / "keys")
            if made is None or machine not in (None, made.machine) or not self._can_go_on(made):
                self._refuse_while_up()
                made = self._make(machine or (made.machine if made else "virt"), keys)
                return self._registered(made, keys, anew=True)
            if self._qemu.is_running:
                self._await_ssh(made.port)  # whoever started it may have been stopped before it was up
            else:
                self._start(made)
            return self._registered(made, keys, anew=False)

    def reset(self) -> Device:
        """Bring the board back to what it was when it was bare, within seconds where there is a snapshot.

        Raises:
            UsageError: if there is no board yet.
            EmulatorError: if it does not come up.
        """
        self._made_already()
        tools.check(tools.TO_RUN)
        with self._alone():
            made = self._made_already()
            keys = make_keys(self.folder / "keys")
            self._qemu.cut_power()
            if not (made.image == image_key(keys) and self._can_go_on(made) and self._resumed(made)):
                made = self._make(made.machine, keys)
            return self._registered(made, keys, anew=True)

    def down(self) -> None:
        """Shut the board down in order; what is on its disk stays."""

        def ask() -> None:
            # The connection may end before the answer, and a board that hangs gives none.
            self._on_board("sudo", "-n", "systemctl", "poweroff", must=False, patience_s=SHUT_DOWN_S)

        if self.is_running:
            self._qemu.shut_down(ask, SHUT_DOWN_S)

    def cut_power(self) -> None:
        """Cut the board off from its power; what it has not flushed to its disk may be gone."""
        if self.folder.is_dir():
            self._qemu.cut_power()

    def ssh_command(self, words: tuple[str, ...]) -> list[str]:
        """Return the command that logs in, or runs ``words`` there, with OpenSSH's own client.

        Raises:
            UsageError: if there is no board yet.
        """
        made, keys = self._made_already(), Keys(self.folder / "keys")
        known = f'UserKnownHostsFile="{self.folder / "known_hosts"}"'
        options = (known, "StrictHostKeyChecking=yes", "IdentitiesOnly=yes")
        return [
            tools.find("ssh"),
            *("-F", "none", "-i", str(keys.user), "-p", str(made.port)),
            *(word for option in options for word in ("-o", option)),
            f"{guest.USER}@{HOST}",
            *words,
        ]

    def _make(self, machine: str, keys: Keys) -> Made:
        """Make a board whose disk nobody has written to, start it, and keep what it then is."""
        image = find_or_build_image(self._cache, keys, self._tell)
        earlier = self._made()
        made = Made(machine, earlier.port if earlier else _free_port(), image.key)
        for left in MACHINES.values():
            (self.folder / left.disk).unlink(missing_ok=True)
        run(_disk_command(MACHINES[machine], image), self.folder / "qemu-img.log", cwd=self.folder)
        write_text(self.folder / "known_hosts", f"[{HOST}]:{made.port} {keys.host_key}\n")
        write_text(self.folder / "board.json", json.dumps(asdict(made)))
        self._start(made)
        if MACHINES[machine].has_snapshots:
            self._tell("keeping what it is now, for resets")
            with connected(self.folder / QMP) as qmp:
                qmp.monitor(f"savevm {SNAPSHOT}")
        return made

    def _start(self, made: Made) -> None:
        self._tell(f"booting {NAME} ({made.machine})")
        self._qemu.start(command(MACHINES[made.machine], self._image(made), made.port, resume=False))
        self._await_ssh(made.port)
        self._set_clock()
        # It answers when all has been started; "degraded" is an answer too.
        self._on_board("systemctl", "is-system-running", "--wait", must=False)

    def _resumed(self, made: Made) -> bool:
        """Start the board from its snapshot; return False where there is none, or this QEMU cannot read it."""
        machine = MACHINES[made.machine]
        if not machine.has_snapshots:
            return False
        try:
            self._qemu.start(command(machine, self._image(made), made.port, resume=True))
            self._await_ssh(made.port)
        except EmulatorError as error:
            self._tell(f"no snapshot to go back to: {error}")
            self._qemu.cut_power()
            return False
        self._set_clock()
        return True

    def _await_ssh(self, port: int) -> None:
        deadline = time.monotonic() + BOOT_S
        while not _greets(port):
            if not self._qemu.is_running:
                raise EmulatorError(f"QEMU has ended while the board booted; its console: {self.folder / CONSOLE}")
            if time.monotonic() > deadline:
                raise EmulatorError(f"no SSH server after {BOOT_S:.0f} s; the board's console: {self.folder / CONSOLE}")
            time.sleep(0.2)

    def _set_clock(self) -> None:
        # A board without a clock begins in the past, and a snapshot goes on at the time of its making.
        deadline = time.monotonic() + LOGIN_S
        while True:
            try:
                self._on_board("sudo", "-n", "date", "--utc", "--set", f"@{time.time():.3f}")
                return
            except EmulatorError:
                # An SSH server may greet before a board that boots lets anybody in.
                if time.monotonic() > deadline:
                    raise
            time.sleep(1)

    def _on_board(self, *words: str, must: bool = True, patience_s: float = BOOT_S) -> None:
        try:
            done = subprocess.run(
                self.ssh_command(words), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=patience_s
            )
        except subprocess.TimeoutExpired as error:
            if must:
                raise EmulatorError(f"{' '.join(words)} on {NAME} took more than {patience_s:.0f} s") from error
            return
        if must and done.returncode:
            raise EmulatorError(f"{' '.join(words)} on {NAME} failed: {done.stderr.strip()}")

    def _registered(self, made: Made, keys: Keys, anew: bool) -> Device:
        device = device_at(made.port, keys)
        register(device, keys, anew)
        return device

    def _refuse_while_up(self) -> None:
        if self._qemu.is_running:
            raise UsageError(f'{NAME} is up as another machine; run "edgepress board down" first')

    def _can_go_on(self, made: Made) -> bool:
        """Tell whether the board's disk is here, and the image below it."""
        return (self.folder / MACHINES[made.machine].disk).is_file() and self._image(made).folder.is_dir()

    def _image(self, made: Made) -> Image:
        return Image(self._cache.subfolder("board") / made.image, made.image)

    def _made_already(self) -> Made:
        made = self._made()
        if made is None:
            raise UsageError(f'there is no {NAME} yet; run "edgepress board up"')
        return made

    def _made(self) -> Made | None:
        path = self.folder / "board.json"
        return Made(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Let no other command start or reset the board meanwhile."""
        with self._cache.writing(self.folder):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = (self.folder / "board.lock").open("ab")
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def users_board(tell: Tell) -> Board:
    """Return the board of whoever calls: one each."""
    return Board(platformdirs.user_data_path("edgepress") / "board", user_cache(), tell)


def _disk_command(machine: Machine, image: Image) -> list[str]:
    """Return what makes a disk of ``image``: a layer above it where the format can have one, otherwise a copy."""
    source, tool = str(image.disk), tools.find("qemu-img")
    if machine.disk_format == "raw":
        return [tool, "convert", "-q", "-f", "raw", "-O", "raw", source, machine.disk]
    return [tool, "create", "-q", "-f", machine.disk_format, "-b", source, "-F", "raw", machine.disk]


def _greets(port: int) -> bool:
    """Tell whether an SSH server greets there; QEMU itself accepts before the board does."""
    with suppress(OSError), socket.create_connection((HOST, port), timeout=5) as connection:
        return connection.recv(4) == b"SSH-"
    return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
