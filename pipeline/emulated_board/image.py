"""The board as files: kernel, initrd, device tree and disk, made once of what is fetched, and kept in the cache."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipeline.cache import Cache, key_of
from pipeline.emulated_board import debian, guest, root_folder, tools
from pipeline.emulated_board import kernel as kernel_module
from pipeline.emulated_board.commands import run
from pipeline.emulated_board.kernel import unpack_kernel, write_initrd
from pipeline.emulated_board.keys import Keys

_SOURCES = (guest, kernel_module, root_folder)


@dataclass(frozen=True)
class Image:
    """What a machine is started with, below ``folder``; ``key`` says what it was made of."""

    folder: Path
    key: str

    @property
    def kernel(self) -> Path:
        """The kernel."""
        return self.folder / "vmlinuz"

    @property
    def device_tree(self) -> Path:
        """The device tree of a Raspberry Pi 3; the board "virt" has its own."""
        return self.folder / kernel_module.DEVICE_TREE

    @property
    def initrd(self) -> Path:
        """The initrd."""
        return self.folder / "initrd.cpio"

    @property
    def disk(self) -> Path:
        """The disk as it is on a bare board: raw, ext4, never written to."""
        return self.folder / "disk.img"


def image_key(keys: Keys) -> str:
    """Return the key of the image that a board with ``keys`` is started with."""
    sources = [hashlib.sha256(Path(str(module.__file__)).read_bytes()).hexdigest() for module in _SOURCES]
    return key_of("image", debian.base_key(), sources, keys.public)


def find_or_build_image(cache: Cache, keys: Keys, tell: Callable[[str], None]) -> Image:
    """Return the image for a board with ``keys``; ``tell`` is told what is made, when something has to be.

    Raises:
        UsageError: if this machine lacks what building takes; the message says what to do.
        EmulatorError: if a program fails.
        StorageError: if the disk is full.
    """
    key = image_key(keys)
    image = Image(cache.subfolder("board") / key, key)
    if image.folder.is_dir():
        return image
    tools.check_build()
    base, kernel = debian.base_tar(cache, tell), debian.kernel_tar(cache, tell)
    tell("writing the board's disk")
    with cache.lock("board", key), cache.entry("board", key) as (folder, is_made):
        if not is_made:
            _build(base, kernel, keys, folder, cache.folder / "board-image.log")
    return image


def _build(base: Path, kernel_tar: Path, keys: Keys, folder: Path, log: Path) -> None:
    folder.chmod(0o700)  # the disk has the board's private key
    work = folder / "work"
    kernel = unpack_kernel(kernel_tar, work / "kernel", log)
    part = Image(folder, "")
    write_initrd(kernel, part.initrd, log)
    command = [sys.executable, "-m", root_folder.__name__]
    paths = (base, kernel.modules, keys.folder, work / "root", part.disk)
    run([*_as_root(), *command, *map(str, paths)], log)
    for path, final in ((kernel.image, part.kernel), (kernel.device_tree, part.device_tree)):
        path.rename(final)
    run([*_as_root(), "rm", "-r", str(work)], log)


def _as_root() -> list[str]:
    """Return what makes the next words run as root, of a user namespace if need be: files then belong to whom they
    should."""
    return [tools.find("unshare"), "--map-root-user", "--map-auto"] if os.getuid() else []
