"""What the board is before anybody has done anything to it, and that it comes back to that."""

import json
import socket

import pytest

pytestmark = [pytest.mark.board, pytest.mark.timeout(3600)]


def test_a_bare_board_has_a_python_and_nothing_to_install_with(bare):
    assert bare.ssh("python3", "--version").startswith("Python 3.11.")
    for module in ("pip", "ensurepip", "numpy", "device_agent"):
        assert "ModuleNotFoundError" in bare.python(
            f"try:\n import {module}\nexcept ModuleNotFoundError as error:\n print(repr(error))\n"
        ), module
    for program in ("gcc", "cc", "make", "uv"):
        assert bare.ssh("sh", "-c", f"'command -v {program} || true'") == "", program


def test_the_board_is_an_arm64_debian_with_systemd_that_says_it_is_emulated(bare):
    assert bare.ssh("uname", "-m").strip() == "aarch64"
    assert bare.ssh("ps", "-o", "comm=", "1").strip() == "systemd"
    assert "edgepress.emulated" in bare.ssh("cat", "/proc/cmdline").split()
    assert bare.ssh("systemctl", "is-system-running", ok=False).strip() == "running"


def test_the_board_reaches_nothing_this_host_included(bare):
    script = (
        "import socket, sys\n"
        "for host, port in (('10.0.2.2', int(sys.argv[1])), ('10.0.2.3', 53), ('1.1.1.1', 443)):\n"
        "    try:\n"
        "        socket.create_connection((host, port), timeout=5)\n"
        "        print('reached', host)\n"
        "    except OSError:\n"
        "        pass\n"
    )
    # What QEMU would lead to, did it let the board out: 10.0.2.2 is this host's loopback.
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert bare.python(script, str(server.getsockname()[1])) == ""


def test_a_command_is_run_on_the_board_by_the_command_line(bare):
    assert bare.edgepress("board", "ssh", "--", "uname", "-m").splitlines()[-1] == "aarch64"


def test_a_reset_takes_seconds_and_leaves_nothing_of_what_was_done(bare):
    bare.put("/home/pi/left", b"something")
    took_s = bare.reset()
    bare.log(f"reset: {took_s:.1f} s")
    assert took_s < 60
    assert bare.ssh("ls", "/home/pi") == ""


def test_the_clock_is_right_after_a_reset(bare):
    bare.reset()
    script = "import time; print(time.time())"
    import time

    assert abs(float(bare.python(script)) - time.time()) < 60


def test_what_was_synced_is_there_after_a_power_cut_and_after_a_shutdown(bare):
    bare.put("/home/pi/kept", b"content")
    bare.ssh("sync")
    bare.edgepress("board", "down", "--cut")
    boot_s = bare.up()
    bare.log(f"cold boot after a power cut: {boot_s:.0f} s")
    assert bare.ssh("cat", "/home/pi/kept") == "content"
    bare.edgepress("board", "down")
    bare.up()
    assert bare.ssh("cat", "/home/pi/kept") == "content"


def test_two_ups_start_one_board(bare):
    first, second = bare.start("board", "up"), bare.start("board", "up")
    assert (first.finish()[0], second.finish()[0]) == (0, 0)
    assert json.loads((bare.board.folder / "board.json").read_text())["machine"] == "virt"


def test_another_machine_is_refused_while_this_one_is_up(bare):
    printed = bare.edgepress("board", "up", "--machine", "raspi3b", code=2)
    assert 'emulated-pi is up as another machine; run "edgepress board down" first' in printed
