"""The script that asks a board what it is, in the shells that boards have, and what is made of its answer."""

import os
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest
from bare_board import PYTHON
from runtime_pythons import PYTHONS

from device_agent.installing.services import Changes, note_changes
from pipeline.devices.provisioning.probe import Installation, parse_probe, version_of
from pipeline.errors import DeviceError

SCRIPT = files("pipeline.devices.provisioning").joinpath("probe.sh").read_bytes()
SHELLS = [shell for shell in (["dash"], ["busybox", "sh"], ["bash", "--posix"]) if shutil.which(shell[0])]
GOOD = "probe=1\nmachine=aarch64\nuser=pi\nhome=/home/pi\ndone=1\n"


@pytest.fixture
def ask(tmp_path):
    """Run the script as sshd does, with a PATH of one folder, and return what it prints."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "python3").symlink_to(PYTHON)
    for name in ("uname", "id", "sed", "tr", "readlink", "df"):
        (programs / name).symlink_to(shutil.which(name))

    def run(shell=("sh",)):
        command = [shutil.which(shell[0]), *shell[1:], "-s"]
        environment = {"HOME": str(tmp_path), "PATH": str(programs)}
        return subprocess.run(command, input=SCRIPT, env=environment, capture_output=True, check=True)

    return run


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell[0])
def test_the_script_finds_the_board_and_its_python_in_every_shell(ask, shell, tmp_path):
    done = ask(shell)
    assert done.stderr == b""
    probe = parse_probe(done.stdout.decode(), "here")
    assert (probe.machine, probe.home) == (os.uname().machine, str(tmp_path))
    room_kib = shutil.disk_usage(tmp_path).free // 1024
    assert abs(probe.user_free_kib - room_kib) < 0.1 * room_kib
    assert probe.system_free_kib is not None
    found = next(python for python in probe.pythons if python.path == str(PYTHON))
    assert found.version == tuple(sys.version_info[:3])
    assert (found.kind, found.bits, found.missing) == ("cpython", 64, ())
    assert found.glibc == version_of(os.confstr("CS_GNU_LIBC_VERSION").split()[1])


def test_each_python_is_named_once(ask, tmp_path):
    (tmp_path / "bin" / "python3.11").symlink_to(PYTHON)
    probe = parse_probe(ask().stdout.decode(), "here")
    assert len(probe.pythons) == len({python.path for python in probe.pythons})


def test_the_packages_of_a_virtual_environment_are_not_taken_for_the_boards(ask, tmp_path):
    """The folder of PATH is that of an environment with a numpy of its own."""
    (tmp_path / "pyvenv.cfg").write_text(f"home = {PYTHON.parent}\n")
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    package = tmp_path / "lib" / version / "site-packages" / "numpy-1.2.3.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 1.2.3\n")
    found = next(python for python in parse_probe(ask().stdout.decode(), "here").pythons if python.path == str(PYTHON))
    assert found.numpy != (1, 2, 3)


def test_a_python_that_hangs_on_its_input_does_not_eat_the_script(ask, tmp_path):
    reader = tmp_path / "bin" / "python3.12"
    reader.write_text("#!/bin/sh\nread -r line\nexit 1\n")
    reader.chmod(0o755)
    assert parse_probe(ask().stdout.decode(), "here").pythons


def test_an_installation_is_found_by_its_link(ask, tmp_path):
    release = tmp_path / ".local/share/edgepress/releases/0123456789abcdef"
    (release / "runtimes/litert").mkdir(parents=True)
    (tmp_path / ".local/share/edgepress/current").symlink_to("releases/0123456789abcdef")
    probe = parse_probe(ask().stdout.decode(), "here")
    assert probe.user_installation == Installation("0123456789abcdef", ("litert",))
    assert probe.system_installation is None
    assert not probe.is_cut


@pytest.mark.parametrize("homes", [("/home/pi/agent",), ("/home/pi/agent", '/mnt/my disk/\u00fc"]')])
def test_an_installation_tells_the_home_that_its_agent_has_now(ask, tmp_path, homes):
    root = tmp_path / ".local/share/edgepress"
    (root / "releases/0123456789abcdef/runtimes/litert").mkdir(parents=True)
    (root / "current").symlink_to("releases/0123456789abcdef")
    note_changes(root, Changes(unit=True, note='"homes": ["/x"]', homes=homes))
    assert parse_probe(ask().stdout.decode(), "here").user_installation.home == homes[-1]


@pytest.mark.parametrize("said", ["", "{", '{"homes": 5}', '{"homes": []}', '{"homes": ["x"]}', "[" * 100_000])
def test_an_installation_that_tells_no_home_that_makes_sense_has_none(said):
    text = f"user_release=0123456789abcdef\nuser_service={said}\n" + GOOD
    assert parse_probe(text, "pi4").user_installation.home == ""


def test_an_installation_that_was_cut_short_is_told_by_what_was_sent(ask, tmp_path):
    (tmp_path / ".local/share/edgepress/incoming").mkdir(parents=True)
    assert parse_probe(ask().stdout.decode(), "here").is_cut


def test_an_installation_that_is_not_whole_is_told_as_begun(ask, tmp_path):
    assert "user_begun" not in ask().stdout.decode()
    (tmp_path / ".local/share/edgepress/releases").mkdir(parents=True)
    assert "user_begun=yes" in ask().stdout.decode().splitlines()


@pytest.mark.parametrize("runtime", PYTHONS)
def test_the_modules_that_are_looked_for_are_those_that_the_agent_and_its_runtimes_import(runtime):
    text = SCRIPT.decode()
    listed = set(text.partition('needed = """')[2].partition('"""')[0].split())
    program = (
        "import sys\n"
        "from device_agent import runtimes, selftest, releases\n"
        "from device_agent.installing import cli, system_service, user_service\n"
        "selftest.import_everything()\n"
        f"runtimes.find({runtime!r}).probe()\n"
        "print(*{name.partition('.')[0] for name in sys.modules} & sys.stdlib_module_names)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[4])}
    done = subprocess.run(
        [PYTHONS[runtime], "-c", program], capture_output=True, text=True, env=environment, check=True
    )
    # Without these Python itself does not start, or whoever imports them does without.
    optional = {"bz2", "lzma", "ntpath", "site"}
    bare = subprocess.run(
        [str(PYTHON), "-I", "-S", "-c", "import sys, zipimport, traceback, runpy; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    found = {name for name in done.stdout.split() if not name.startswith("_")}
    assert found - set(bare.stdout.split()) - set(sys.builtin_module_names) - optional <= listed


@pytest.mark.parametrize("text", ["", "This account is not available.\n", GOOD.replace("done=1\n", "")])
def test_an_answer_that_is_not_whole_is_quoted(text):
    with pytest.raises(DeviceError, match="pi4 cannot be probed: its shell said"):
        parse_probe(text, "pi4")


@pytest.mark.parametrize("home", ["", "home/pi", "/home/my pi", "/home/../root", "/home/$(reboot)", "/home/pi'"])
def test_a_home_that_cannot_be_a_word_of_a_command_is_refused(home):
    with pytest.raises(DeviceError, match='home of pi is "'):
        parse_probe(GOOD.replace("/home/pi", home), "pi4")


def test_a_python_whose_path_cannot_be_a_word_of_a_command_is_left_out():
    line = "python=3.11.2 cpython 64 2.36 - - /usr/bin/py;reboot\n"
    assert parse_probe(line + GOOD, "pi4").pythons == ()


@pytest.mark.parametrize(
    "line",
    [
        "python=3.11.2 cpython 64 2.36 - \x1b[2J /usr/bin/python3\n",
        f"python=3.{'1' * 5000}.2 cpython 64 2.36 - - /usr/bin/python3\n",
    ],
)
def test_a_python_that_cannot_be_shown_is_left_out(line):
    assert parse_probe(line + GOOD, "pi4").pythons == ()


def test_a_version_without_end_is_read_as_far_as_it_makes_sense():
    assert version_of("1" * 5000) == (111111111,)


def test_a_release_that_is_none_is_no_installation():
    assert parse_probe("user_release=../../x\n" + GOOD, "pi4").user_installation is None
