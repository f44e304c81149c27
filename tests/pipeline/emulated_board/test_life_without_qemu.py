"""The emulated board's life, with programs of a few lines in the places of QEMU, qemu-img and ssh."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline.cache import Cache
from pipeline.devices.inventory import find_device
from pipeline.emulated_board import board as board_module
from pipeline.emulated_board import tools
from pipeline.emulated_board.board import Board
from pipeline.emulated_board.image import image_key
from pipeline.emulated_board.keys import make_keys
from pipeline.errors import EmulatorError, UsageError

# Leaves itself behind as QEMU does, and greets like an SSH server unless the board still boots.
QEMU = """\
#!{python}
import os, re, socket, sys
words = " ".join(sys.argv[1:])
assert os.path.isfile(re.search("file=([^,]+),", words)[1])
listener = socket.create_server(("127.0.0.1", int(re.search("hostfwd=tcp:127.0.0.1:([0-9]+)-", words)[1])))
with open("starts", "a") as file:
    file.write("x")
process = os.fork()
if process:
    with open("qemu.pid", "w") as file:
        file.write(str(process))
    sys.exit()
for descriptor in range(3):
    os.dup2(os.open(os.devnull, os.O_RDWR), descriptor)
while True:
    with listener.accept()[0] as connection:
        connection.sendall(b"" if os.path.exists("boots") else b"SSH-2.0-x")
"""
QEMU_IMG = '#!/bin/sh\nfor disk; do :; done\necho bare > "$disk"\n'
SSH = """\
#!/bin/sh
echo "$*" >> {folder}/asked
case "$*" in *poweroff*) test -e {folder}/hangs && exec sleep 1000; kill "$(cat {folder}/qemu.pid)";; esac
"""


@pytest.fixture
def board(tmp_path, monkeypatch):
    """A board that was never made, whose image is there already."""
    programs, folder = tmp_path / "bin", tmp_path / "board"
    programs.mkdir()
    texts = {
        "qemu-system-aarch64": QEMU.format(python=sys.executable),
        "qemu-img": QEMU_IMG,
        "ssh": SSH.format(folder=folder),
    }
    for name, text in texts.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    monkeypatch.setattr(tools, "SEARCH_PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.setattr(tools, "TO_BUILD", {})
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("EDGEPRESS_DEVICES", str(tmp_path / "devices"))
    folder.mkdir()
    cache = Cache(tmp_path / "cache")
    (cache.subfolder("board") / image_key(make_keys(folder / "keys"))).mkdir()
    made = Board(folder, cache, lambda text: None)
    yield made
    made.cut_power()


def disk(board: Board) -> Path:
    return board.folder / "disk.raw"


def test_a_board_keeps_its_disk_from_start_to_start_and_is_bare_after_a_reset(board):
    device = board.up("raspi3b")
    assert board.is_running
    assert find_device("emulated-pi") == device
    assert "date --utc --set @" in (board.folder / "asked").read_text(), "a board without a clock is told the time"
    disk(board).write_text("used")
    board.down()
    assert not board.is_running
    assert board.up() == device
    assert disk(board).read_text() == "used"
    board.cut_power()
    assert not board.is_running
    assert board.reset() == device
    assert disk(board).read_text() == "bare\n"


def test_two_that_make_a_board_at_once_make_one(board):
    with ThreadPoolExecutor(2) as executor:
        first, second = (executor.submit(board.up, "raspi3b") for _ in range(2))
    assert first.result() == second.result()
    assert (board.folder / "starts").read_text() == "x"


def test_a_board_that_still_boots_is_waited_for_by_whoever_starts_it_again(board, monkeypatch):
    monkeypatch.setattr(board_module, "BOOT_S", 0.5)
    (board.folder / "boots").touch()
    for _ in range(2):
        with pytest.raises(EmulatorError, match=r"^no SSH server after 0 s; the board's console: "):
            board.up("raspi3b")
    (board.folder / "boots").unlink()
    board.up("raspi3b")
    assert (board.folder / "starts").read_text() == "x"


def test_a_board_that_hangs_is_ended_all_the_same(board, monkeypatch):
    monkeypatch.setattr(board_module, "SHUT_DOWN_S", 0.2)
    board.up("raspi3b")
    (board.folder / "hangs").touch()
    board.down()
    assert not board.is_running


def test_another_machine_is_refused_while_the_first_is_up(board):
    board.up("raspi3b")
    with pytest.raises(UsageError, match=r'^emulated-pi is up as another machine; run "edgepress board down" first$'):
        board.up("virt")
