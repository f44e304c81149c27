"""What the host must have for the emulated board, and what to do when it is missing: Debian's packages by name."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Mapping
from pathlib import Path

from pipeline.errors import UsageError

TO_RUN = {
    "qemu-system-aarch64": "qemu-system-arm",
    "qemu-img": "qemu-utils",
    "ssh": "openssh-client",
}
TO_BUILD = {
    "mmdebstrap": "mmdebstrap",
    "arch-test": "arch-test",
    "qemu-aarch64-static": "qemu-user-static",
    "depmod": "kmod",
    "cpio": "cpio",
    "mke2fs": "e2fsprogs",
    "tar": "tar",
    "/usr/share/keyrings/debian-archive-keyring.gpg": "debian-archive-keyring",
}
_TO_BUILD_WITHOUT_ROOT = {"newuidmap": "uidmap", "unshare": "util-linux"}
# With where Debian has what only root is thought to need.
SEARCH_PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
_ARM64_HANDLER = Path("/proc/sys/fs/binfmt_misc/qemu-aarch64")
_SUBORDINATE_IDS = (Path("/etc/subuid"), Path("/etc/subgid"))


def find(tool: str) -> str:
    """Return the path of a program.

    Raises:
        UsageError: if it is missing; the message names its package.
    """
    check({tool: {**TO_RUN, **TO_BUILD, **_TO_BUILD_WITHOUT_ROOT}[tool]})
    return shutil.which(tool, path=SEARCH_PATH) or tool


def check(tools: Mapping[str, str]) -> None:
    """See that all of ``tools`` are here: names of programs, or paths of files, and the packages that have them.

    Raises:
        UsageError: with every package that is missing.
    """
    missing = sorted({package for tool, package in tools.items() if not _is_here(tool)})
    if missing:
        names = " ".join(missing)
        raise UsageError(
            f'the emulated board needs {", ".join(missing)}; run "sudo apt-get install --no-install-recommends {names}"'
        )


def check_build() -> None:
    """See that an image can be built here: the tools, arm64 programs that run, and root, or what stands in for it.

    Raises:
        UsageError: with what to do.
    """
    check(TO_BUILD)
    if platform.machine() != "aarch64" and not _runs_arm64(_ARM64_HANDLER):
        raise UsageError(
            "this kernel does not run arm64 programs, which building the board's image takes; run "
            '"sudo apt-get install binfmt-support", then "sudo update-binfmts --enable qemu-aarch64"'
        )
    if os.getuid():
        check(_TO_BUILD_WITHOUT_ROOT)
        _check_subordinate_ids()


def _check_subordinate_ids() -> None:
    import getpass

    user, numbers = getpass.getuser(), "200000-265535"
    for file in _SUBORDINATE_IDS:
        lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
        if not any(line.split(":")[0] in (user, str(os.getuid())) for line in lines):
            raise UsageError(
                f"{file} has no line for {user}; building the board's image takes root, or user and group ids that "
                f'stand in: run "sudo usermod --add-subuids {numbers} --add-subgids {numbers} {user}"'
            )


def _runs_arm64(handler: Path) -> bool:
    return _is_file(str(handler)) and handler.read_text(encoding="ascii").startswith("enabled")


def _is_here(tool: str) -> bool:
    return _is_file(tool) or shutil.which(tool, path=SEARCH_PATH) is not None


def _is_file(path: str) -> bool:
    return path.startswith("/") and Path(path).is_file()
