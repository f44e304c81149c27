"""Debian's part of the image: the board's userland and its kernel, fetched and unpacked once, each as a tar.

The kernel comes apart from the userland and is never configured there: the stock initramfs step alone takes ten minutes
under emulation.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pipeline.cache import Cache, key_of
from pipeline.emulated_board import guest, tools
from pipeline.emulated_board.commands import run

Tell = Callable[[str], None]

_APT = ('Acquire::Languages "none"', 'APT::Install-Recommends "0"')


def base_tar(cache: Cache, tell: Tell) -> Path:
    """Return the tar of the board's userland, without a kernel; ``tell`` is told when it has to be made.

    Raises:
        EmulatorError: if mmdebstrap fails.
    """
    unwanted = [f"--dpkgopt=path-exclude={pattern}" for pattern in guest.UNWANTED]
    options = ["--dpkgopt=force-unsafe-io", *unwanted]
    return _tar(cache, "base", "minbase", guest.PACKAGES, options, tell)


def kernel_tar(cache: Cache, tell: Tell) -> Path:
    """Return the tar of the kernel, its modules, its device trees and a busybox for the initrd, unpacked only."""
    return _tar(cache, "kernel", "extract", guest.KERNEL_PACKAGES, [], tell)


def base_key() -> str:
    """Return the key of the two tars together."""
    return key_of(guest.SUITE, guest.PACKAGES, guest.UNWANTED, guest.KERNEL_PACKAGES, _APT)


def _tar(cache: Cache, name: str, variant: str, packages: tuple[str, ...], options: list[str], tell: Tell) -> Path:
    key = key_of(name, guest.SUITE, variant, packages, options, _APT)
    command = [
        tools.find("mmdebstrap"),
        "--arch=arm64",
        f"--variant={variant}",
        "--components=main",
        "--format=tar",
        *(f"--aptopt={option}" for option in _APT),
        *options,
        f"--include={','.join(packages)}",
        guest.SUITE,
    ]
    with cache.lock("board", key), cache.entry("board", key) as (folder, is_made):
        if not is_made:
            tell(f"fetching and unpacking Debian's {name} system for arm64 (some minutes, once)")
            run([*command, str(folder / f"{name}.tar")], cache.folder / f"board-{name}.log")
    return cache.subfolder("board") / key / f"{name}.tar"
