"""The board's disk, written as root: ``python -m pipeline.emulated_board.root_folder TAR MODULES KEYS FOLDER DISK``.

A process of its own, so that an ordinary user can run it as the root of a user namespace; it loads the standard library
alone. Nothing is mounted: mke2fs copies the folder.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from pipeline.emulated_board import guest

SIZE = "4096M"


def main(tar: Path, modules: Path, keys: Path, folder: Path, disk: Path) -> None:
    """Unpack ``tar`` below ``folder``, make a board of it, and write it as an ext4 image to ``disk``.

    ``modules`` is the kernel's folder of modules; ``keys`` has ``host``, ``host.pub`` and ``user.pub``.
    """
    folder.mkdir()
    # Devices cannot be made in a user namespace, and the kernel makes them at boot.
    subprocess.run(["tar", "-xpf", tar, "-C", folder, "--numeric-owner", "--exclude=./dev/*"], check=True)
    write_files(folder)
    write_accounts(folder)
    write_keys(folder, keys)
    copy_modules(folder, modules)
    for name in ("var/cache/apt", "var/lib/apt/lists"):
        shutil.rmtree(folder / name, ignore_errors=True)
    options = ["-q", "-F", "-t", "ext4", "-L", "root", "-O", "^metadata_csum_seed,^orphan_file"]
    options += ["-E", "lazy_itable_init=1,lazy_journal_init=1", "-d", str(folder)]
    subprocess.run(["mke2fs", *options, str(disk), SIZE], check=True)


def write_files(folder: Path) -> None:
    """Write the files of ``guest``, and switch services on and off."""
    for name, text in guest.FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_text(text, encoding="utf-8")
    (folder / "etc/sudoers.d/pi").chmod(0o440)
    enabled = {f"{target}.wants/{unit}": f"/lib/systemd/system/{unit}" for target, unit in guest.ENABLED}
    for name, target in {**enabled, **dict.fromkeys(guest.MASKED, "/dev/null")}.items():
        path = folder / "etc/systemd/system" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.symlink_to(target)


def write_accounts(folder: Path) -> None:
    """Add the user, in the groups that the user of a Raspberry Pi is in, with a home."""
    for name, line in guest.ACCOUNTS.items():
        with (folder / name).open("a", encoding="utf-8") as file:
            file.write(line)
    for name in ("etc/group", "etc/gshadow"):
        path = folder / name
        lines = [_with_member(line) for line in path.read_text(encoding="utf-8").splitlines()]
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    home = folder / "home" / guest.USER
    shutil.copytree(folder / "etc/skel", home, symlinks=True)
    home.chmod(0o755)


def write_keys(folder: Path, keys: Path) -> None:
    """Put the host's key pair and the key that may log in where sshd looks for them."""
    ssh = folder / "etc/ssh"
    for left in ssh.glob("ssh_host_*"):
        left.unlink()
    shutil.copyfile(keys / "host", ssh / "ssh_host_ed25519_key")
    shutil.copyfile(keys / "host.pub", ssh / "ssh_host_ed25519_key.pub")
    (ssh / "ssh_host_ed25519_key").chmod(0o600)
    home = folder / "home" / guest.USER
    (home / ".ssh").mkdir(mode=0o700)
    shutil.copyfile(keys / "user.pub", home / ".ssh" / "authorized_keys")
    for path in (home, *home.rglob("*")):
        os.chown(path, guest.USER_ID, guest.USER_ID, follow_symlinks=False)


def copy_modules(folder: Path, modules: Path) -> None:
    """Copy the modules that a board needs, and write down what needs what."""
    target = folder / "lib/modules" / modules.name
    target.mkdir(parents=True)
    for name in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
        shutil.copyfile(modules / name, target / name)
    for name in guest.MODULES:
        if (modules / name).is_dir():
            shutil.copytree(modules / name, target / name)
    subprocess.run(["depmod", "-b", str(folder), modules.name], check=True)


def _with_member(line: str) -> str:
    if line.split(":")[0] not in guest.GROUPS:
        return line
    return f"{line}{'' if line.endswith(':') else ','}{guest.USER}"


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:]))
