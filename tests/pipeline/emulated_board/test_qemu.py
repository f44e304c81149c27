"""QEMU as it is asked for, watched and spoken with; stand-ins of its own take its place where none is installed."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from pathlib import Path

import pytest

from device_agent.sensors.emulation import BOOT_WORD
from pipeline.emulated_board import tools
from pipeline.emulated_board.image import Image
from pipeline.emulated_board.machine import MACHINES, Qemu, command
from pipeline.emulated_board.qmp import connected
from pipeline.errors import EmulatorError


@pytest.fixture
def qemu_is_installed(tmp_path, monkeypatch):
    """A program of QEMU's name, for its path alone."""
    (tmp_path / "qemu-system-aarch64").write_text("")
    (tmp_path / "qemu-system-aarch64").chmod(0o755)
    monkeypatch.setattr(tools, "SEARCH_PATH", str(tmp_path))


@pytest.mark.parametrize("name", MACHINES)
def test_a_machine_is_reached_from_this_host_alone_and_reaches_nothing(name, tmp_path, qemu_is_installed):
    words = command(MACHINES[name], Image(tmp_path, "k"), 2345, resume=False)
    assert words[0] == str(tmp_path / "qemu-system-aarch64")
    assert words[words.index("-M") + 1] == name
    [network] = [word for word in words if word.startswith("user,")]
    assert "restrict=on" in network
    assert network.count("hostfwd=") == 1 and "hostfwd=tcp:127.0.0.1:2345-10.0.2.15:22" in network
    assert "-vnc" not in words and "-loadvm" not in words


@pytest.mark.parametrize(
    ("name", "honest"),
    [
        ("virt", {"cache=none", "file=disk.qcow2", "format=qcow2"}),
        # Nobody flushes an SD card: without a format in between, what it has taken is in the file.
        ("raspi3b", {"if=sd", "file=disk.raw", "format=raw"}),
    ],
)
def test_a_machine_s_disk_honours_what_is_flushed_and_its_kernel_is_told_that_it_is_emulated(
    name, honest, tmp_path, qemu_is_installed
):
    words = command(MACHINES[name], Image(tmp_path, "k"), 2345, resume=False)
    [drive] = [words[place + 1] for place, word in enumerate(words) if word == "-drive"]
    assert honest <= set(drive.split(","))
    assert BOOT_WORD in words[words.index("-append") + 1].split()


# QEMU's process: a stand-in that daemonizes and holds what it has inherited, as QEMU does.

STAND_IN = ["sh", "-c", "sleep 1000 >/dev/null 2>&1 & echo $! > qemu.pid"]


@pytest.fixture
def qemu(tmp_path):
    running = Qemu(tmp_path)
    yield running
    running.cut_power()


def test_a_qemu_is_known_to_run_by_a_lock_that_ends_with_it(qemu, tmp_path):
    assert not qemu.is_running
    qemu.start(STAND_IN)
    assert qemu.is_running and Qemu(tmp_path).is_running
    qemu.cut_power()
    assert not qemu.is_running
    qemu.cut_power()


def test_a_stale_process_id_ends_nobody(qemu, tmp_path):
    (tmp_path / "qemu.pid").write_text(str(os.getpid()))
    qemu.cut_power()
    assert not qemu.is_running


def test_one_that_is_just_starting_is_not_ended_by_the_number_of_an_earlier_one(qemu, tmp_path):
    (tmp_path / "qemu.pid").write_text(str(os.getpid()))
    qemu.start(["sh", "-c", "sleep 1000 >/dev/null 2>&1 & echo $! > number"])
    with pytest.raises(EmulatorError, match=r"^QEMU is just starting or ending; try again$"):
        qemu.cut_power()
    (tmp_path / "qemu.pid").write_text((tmp_path / "number").read_text())


def test_a_board_that_ends_by_itself_is_waited_for_and_one_that_does_not_is_ended(qemu, tmp_path):
    qemu.start(STAND_IN)
    pid = int((tmp_path / "qemu.pid").read_text())
    qemu.shut_down(lambda: os.kill(pid, signal.SIGTERM), patience_s=60)
    assert not qemu.is_running
    qemu.start(STAND_IN)
    qemu.shut_down(lambda: None, patience_s=0.1)
    assert not qemu.is_running


def test_a_qemu_that_does_not_start_says_why(qemu):
    with pytest.raises(EmulatorError, match=r"^QEMU did not start: no such machine$"):
        qemu.start(["sh", "-c", "echo no such machine >&2; exit 1"])
    assert not qemu.is_running


def answer(listener: socket.socket, answers: list[dict]) -> None:
    connection, _ = listener.accept()
    with connection, connection.makefile("rw") as stream:
        stream.write('{"QMP": {"version": {}}}\n')
        stream.flush()
        for each in ({"return": {}}, *answers):
            if not stream.readline():
                return
            stream.write('{"event": "RESUME"}\n' + json.dumps(each) + "\n")
            stream.flush()


@pytest.fixture
def monitor(tmp_path):
    """A function that serves these answers at the path it returns, which is longer than a socket's may be."""
    folder = tmp_path / ("d" * 120)
    folder.mkdir()
    listener = socket.socket(socket.AF_UNIX)
    descriptor = os.open(folder, os.O_PATH)
    listener.bind(f"/proc/self/fd/{descriptor}/qmp.sock")
    listener.listen()

    def serve(*answers: dict) -> Path:
        threading.Thread(target=answer, args=(listener, list(answers)), daemon=True).start()
        return folder / "qmp.sock"

    yield serve
    listener.close()
    os.close(descriptor)


def test_qemu_s_answer_is_found_among_its_events(monitor):
    with connected(monitor({"return": "fine"})) as qmp:
        assert qmp.execute("query-status") == "fine"


def test_what_qemu_refuses_is_told(monitor):
    refused = {"error": {"class": "GenericError", "desc": "no such thing"}}
    with connected(monitor(refused, {"return": "Error: no snapshot\r\n"})) as qmp:
        with pytest.raises(EmulatorError, match=r"^QEMU refuses nonsense: no such thing$"):
            qmp.execute("nonsense")
        with pytest.raises(EmulatorError, match=r'^QEMU answers "savevm bare" with: Error: no snapshot$'):
            qmp.monitor("savevm bare")


def test_a_qemu_that_is_gone_is_told(monitor, tmp_path):
    with connected(monitor()) as qmp, pytest.raises(EmulatorError, match=r"^QEMU has ended"):
        qmp.execute("query-status")
    with pytest.raises(EmulatorError, match="no QEMU answers at"), connected(tmp_path / "qmp.sock"):
        pass
