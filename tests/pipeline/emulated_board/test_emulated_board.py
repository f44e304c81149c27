"""The emulated board as far as no QEMU is needed: what is asked of the host, what is written, who is believed."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import paramiko
import pytest

from pipeline.cache import Cache
from pipeline.devices.host_keys import known_keys
from pipeline.devices.inventory import find_device
from pipeline.devices.ssh_config import ssh_target
from pipeline.emulated_board import guest, kernel, root_folder, tools
from pipeline.emulated_board.board import Board
from pipeline.emulated_board.image import image_key
from pipeline.emulated_board.keys import make_keys
from pipeline.emulated_board.registration import device_at, register
from pipeline.errors import EmulatorError, UsageError


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """An empty HOME, and a folder to stand in that is a project's."""
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "EDGEPRESS_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "project" / "configs" / "devices").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "home"


def edgepress(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("edgepress")), "board", *words]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})


# What the host must have


def test_missing_tools_are_told_by_their_packages_all_at_once():
    with pytest.raises(UsageError) as refused:
        tools.check({"no-such-tool": "b-package", "/no/such/file": "a-package", "sh": "dash", "/etc/passwd": "passwd"})
    assert str(refused.value) == (
        "the emulated board needs a-package, b-package; "
        'run "sudo apt-get install --no-install-recommends a-package b-package"'
    )


def test_without_any_board_the_commands_say_how_to_have_one():
    for words in (("reset",), ("ssh", "true"), ("ssh", "df", "-h")):
        done = edgepress(*words)
        assert (done.returncode, done.stderr) == (
            2,
            'edgepress: there is no emulated-pi yet; run "edgepress board up"\n',
        )
    assert edgepress("down").stdout == "emulated-pi is down\n"


def test_what_building_takes_is_told_before_anything_is_made(home):
    # Only /usr/sbin is searched then, where neither QEMU nor mmdebstrap is.
    done = edgepress("up", PATH="/nonexistent")
    assert done.returncode == 2
    assert "the emulated board needs " in done.stderr
    assert "mmdebstrap" in done.stderr and "qemu-system-arm" in done.stderr
    assert not home.exists()


# Keys


def test_keys_are_made_once_for_their_owner_alone_and_differ(tmp_path):
    keys = make_keys(tmp_path / "keys")
    assert keys.folder.stat().st_mode & 0o777 == 0o700
    for name in ("user", "host"):
        assert (keys.folder / name).stat().st_mode & 0o777 == 0o600
        private = paramiko.PKey.from_path(str(keys.folder / name))
        assert private.get_base64() == (keys.folder / f"{name}.pub").read_text().split()[1]
    assert make_keys(tmp_path / "keys").public == keys.public
    assert make_keys(tmp_path / "others").public != keys.public


def test_an_image_belongs_to_its_keys(tmp_path):
    mine, others = make_keys(tmp_path / "mine"), make_keys(tmp_path / "others")
    assert image_key(mine) == image_key(mine) != image_key(others)


# The device


def test_the_board_is_an_ordinary_device_of_the_user_known_as_emulated_and_believed(tmp_path, home):
    keys = make_keys(tmp_path / "keys")
    file = register(device_at(2345, keys), keys, anew=True)
    assert file == home / ".config/edgepress/devices/emulated-pi.yaml"
    device = find_device("emulated-pi")
    assert (device.host, device.port, device.user) == ("127.0.0.1", 2345, "pi")
    assert (device.emulated, device.identity_file) == (True, keys.user)
    [known] = known_keys(ssh_target(device))
    assert f"{known.key.get_name()} {known.key.get_base64()}" == keys.host_key


def test_what_was_written_into_its_file_stays_unless_the_board_is_new(tmp_path):
    keys = make_keys(tmp_path / "keys")
    file = register(device_at(2345, keys), keys, anew=True)
    file.write_text(file.read_text() + "agent: /opt/agent\n")
    register(device_at(2345, keys), keys, anew=False)
    assert find_device("emulated-pi").agent == "/opt/agent"
    register(device_at(2345, keys), keys, anew=True)
    assert find_device("emulated-pi").agent == "edgepress-agent"


def test_a_new_key_of_the_board_takes_the_place_of_the_old_one(tmp_path):
    for name in ("old", "new"):
        keys = make_keys(tmp_path / name)
        register(device_at(2345, keys), keys, anew=True)
    [known] = known_keys(ssh_target(find_device("emulated-pi")))
    assert known.key.get_base64() == keys.host_key.split()[1]


# Files of the image


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def test_modules_are_loaded_after_what_they_need_each_once(tmp_path):
    (tmp_path / "modules.dep").write_text(
        "kernel/fs/ext4/ext4.ko: kernel/fs/jbd2/jbd2.ko kernel/lib/crc16.ko\n"
        "kernel/fs/jbd2/jbd2.ko: kernel/lib/crc16.ko\n"
        "kernel/lib/crc16.ko:\n"
        "kernel/drivers/block/virtio-blk.ko: kernel/lib/crc16.ko\n"
    )
    assert kernel.load_order(tmp_path, ("ext4", "built_in", "virtio_blk")) == [
        "kernel/lib/crc16.ko",
        "kernel/fs/jbd2/jbd2.ko",
        "kernel/fs/ext4/ext4.ko",
        "kernel/drivers/block/virtio-blk.ko",
    ]


def test_a_kernel_s_tar_without_its_parts_is_told(tmp_path):
    with tarfile.open(tmp_path / "kernel.tar", "w") as tar:
        add(tar, "./usr/bin/busybox", b"b")
        add(tar, "./boot/vmlinuz-6.1.0-1-arm64", b"k")
    with pytest.raises(EmulatorError, match=r"kernel\.tar has no bcm2837-rpi-3-b\.dtb$"):
        kernel.unpack_kernel(tmp_path / "kernel.tar", tmp_path / "kernel", tmp_path / "log")


@pytest.fixture
def userland(tmp_path):
    """As much of Debian's files as the board's own are added to."""
    texts = {
        "etc/passwd": "root:x:0:0:root:/root:/bin/bash\n",
        "etc/group": "root:x:0:\nvideo:x:44:\nsudo:x:27:ana\n",
        "etc/shadow": "root:*:19000:0:99999:7:::\n",
        "etc/gshadow": "root:*::\nvideo:*::\nsudo:*::ana\n",
        "etc/skel/.profile": "# hello\n",
        "etc/ssh/ssh_host_rsa_key": "left by the package",
    }
    for name, text in texts.items():
        path = tmp_path / "userland" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "userland"


def test_the_user_of_the_board_has_a_home_groups_and_no_password(userland):
    root_folder.write_accounts(userland)
    assert (userland / "etc/passwd").read_text().endswith("pi:x:1000:1000:,,,:/home/pi:/bin/bash\n")
    assert (userland / "etc/group").read_text() == "root:x:0:\nvideo:x:44:pi\nsudo:x:27:ana,pi\npi:x:1000:\n"
    assert (userland / "etc/gshadow").read_text() == "root:*::\nvideo:*::pi\nsudo:*::ana,pi\npi:!::\n"
    assert "\npi:*:" in (userland / "etc/shadow").read_text()
    assert (userland / "home/pi/.profile").read_text() == "# hello\n"


def test_services_are_switched_on_and_off_by_links(userland):
    root_folder.write_files(userland)
    units = userland / "etc/systemd/system"
    assert (units / "multi-user.target.wants/ssh.service").readlink() == Path("/lib/systemd/system/ssh.service")
    assert all((units / unit).readlink() == Path("/dev/null") for unit in guest.MASKED)
    assert (userland / "etc/sudoers.d/pi").stat().st_mode & 0o777 == 0o440


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_the_board_has_the_keys_that_were_made_for_it_and_no_others(userland, tmp_path):
    keys = make_keys(tmp_path / "keys")
    root_folder.write_accounts(userland)
    root_folder.write_keys(userland, keys.folder)
    ssh = userland / "etc/ssh"
    assert sorted(path.name for path in ssh.iterdir()) == ["ssh_host_ed25519_key", "ssh_host_ed25519_key.pub"]
    assert (ssh / "ssh_host_ed25519_key").stat().st_mode & 0o777 == 0o600
    allowed = userland / "home/pi/.ssh/authorized_keys"
    assert allowed.read_text() == (keys.folder / "user.pub").read_text()
    assert (allowed.stat().st_uid, allowed.parent.stat().st_mode & 0o777) == (1000, 0o700)
    assert not any("PRIVATE" in path.read_text() for path in (userland / "home").rglob("*") if path.is_file())


def test_a_board_that_was_never_made_is_not_running_and_is_cut_off_without_complaint(tmp_path):
    board = Board(tmp_path / "board", Cache(tmp_path / "cache"), print)
    board.cut_power()
    board.down()
    assert not board.is_running
    assert not (tmp_path / "board").exists()
