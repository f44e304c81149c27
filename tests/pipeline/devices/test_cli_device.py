"""``edgepress device``, as a user types it: what is printed and the exit code."""

import subprocess
import sys
from pathlib import Path

import pytest
from agents import HELLO, hello_line, stop_agent, write_agent, write_peer
from ssh_server import SSHD, fingerprint

from device_agent import __version__
from device_agent.protocol import PROTOCOL_VERSION

EDGEPRESS = str(Path(sys.executable).with_name("edgepress"))

through_sshd = [
    pytest.mark.sshd,
    pytest.mark.skipif(SSHD is None, reason="no sshd on this machine: install openssh-server"),
]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The folder of device files, a terminal wide enough for its name."""
    path = tmp_path / "devices"
    monkeypatch.setenv("EDGEPRESS_DEVICES", str(path))
    monkeypatch.setenv("COLUMNS", "300")
    path.mkdir()
    return path


@pytest.fixture
def home_of_agent(tmp_path):
    yield tmp_path / "agent-home"
    stop_agent(tmp_path / "agent-home")


def device(*arguments: object, said: str = "") -> tuple[int, str, str]:
    """Run a command, to which ``said`` is typed; return exit code, output and messages."""
    done = subprocess.run(
        [EDGEPRESS, "device", *map(str, arguments)], input=said, capture_output=True, text=True, timeout=60
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


def rows(table: str) -> list[list[str]]:
    """Return the cells of a printed table; they are two spaces or more apart."""
    lines = [line.strip() for line in table.splitlines() if line.strip() and "───" not in line]
    return [[cell.strip() for cell in line.split("   ") if cell.strip()] for line in lines]


def test_add_writes_a_file_and_says_what_is_next(folder, tmp_path):
    words = ["--host", "pi4.lan", "--port", 2222, "--user", "pi", "--identity-file", "key", "--tag=lab", "--tag=b"]
    code, output, _ = device("add", "pi4", *words, "--agent", "/opt/agent", "--home", "/mnt/edge")
    file = folder / "pi4.yaml"
    following = '"edgepress device trust pi4", then "edgepress device provision pi4"'
    assert (code, output) == (0, f"wrote {file}; next: {following}\n")
    assert file.read_text() == (
        f"transport: ssh\nhost: pi4.lan\nport: 2222\nuser: pi\nidentity_file: {tmp_path}/project/key\n"
        "agent: /opt/agent\nhome: /mnt/edge\ntags:\n- lab\n- b\n"
    )


def test_add_of_a_name_that_exists_is_exit_code_2(folder):
    (folder / "pi4.yaml").write_text("host: a\n")
    remedy = 'run "edgepress device remove pi4" first, or edit that file'
    expected = f'edgepress: device "pi4" exists already in {folder}/pi4.yaml; {remedy}\n'
    assert device("add", "pi4", "--host", "b") == (2, "", expected)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["Pi4", "--host", "a"], 'device name is "Pi4"; expected lower-case letters, digits, _ and -, 63 at most'),
        (["pi4", "--host=-oProxyCommand=x"], 'host is "-oProxyCommand=x"; expected a host name, an address, or'),
        (["pi4", "--host", "a", "--port", "0"], "0 is not in the range 1<=x<=65535"),
        (["pi4"], "Missing option '--host'"),
    ],
)
def test_add_of_what_is_not_allowed_is_exit_code_2_and_writes_nothing(folder, words, message):
    code, _, said = device("add", *words)
    assert code == 2
    assert message in said
    assert not list(folder.iterdir())


def test_list_shows_every_device_and_its_file(folder):
    (folder / "pi4.yaml").write_text("host: pi4.lan\ntags: [lab, arm]\n")
    code, output, _ = device("list", "--offline")
    assert code == 0
    assert rows(output) == [
        ["name", "host", "tags", "state", "leased by", "last seen", "file"],
        ["local", "this machine", "built in"],
        ["pi4", "pi4.lan", "lab, arm", f"{folder}/pi4.yaml"],
    ]


def test_list_tells_every_mistake_on_a_line_of_its_own(folder):
    (folder / "a.yaml").write_text('host: a\nport: "22a"\n')
    (folder / "b.yaml").write_text("host: a\nhots: b\n")
    code, output, said = device("list")
    assert (code, output) == (2, "")
    assert said.splitlines() == [
        f'edgepress: {folder}/a.yaml:2: port is "22a"; expected an integer from 1 to 65535',
        f'{folder}/b.yaml:2: unknown key "hots"; known: transport, host, port, user, identity_file, agent, home, '
        "as_user, tags, connect_timeout_s, conditions, emulated",
    ]


def test_remove_deletes_the_file_and_names_it(folder):
    (folder / "pi4.yaml").write_text("host: a\n")
    assert device("remove", "pi4") == (0, f"removed {folder}/pi4.yaml\n", "")
    assert device("remove", "pi4") == (2, "", 'edgepress: unknown device "pi4"; known: local\n')


@pytest.mark.parametrize("command", ["check", "trust"])
def test_a_device_that_is_unknown_is_exit_code_2_and_lists_the_known(folder, command):
    (folder / "pi4.yaml").write_text("host: a\n")
    assert device(command, "pi5") == (2, "", 'edgepress: unknown device "pi5"; known: local, pi4\n')


def test_trust_of_this_machine_is_exit_code_2():
    expected = 'edgepress: device "local" is this machine; there is no host key to trust\n'
    assert device("trust", "local") == (2, "", expected)


def test_check_prints_what_the_agent_says_of_itself(folder, tmp_path, home_of_agent):
    (folder / "here.yaml").write_text(f"transport: local\nagent: {write_agent(tmp_path)}\nhome: {home_of_agent}\n")
    code, output, _ = device("check", "here")
    assert code == 0
    said = dict(row[:2] for row in rows(output))
    assert said["here"] == "is up"
    assert said["agent"] == f"{__version__}, protocol {PROTOCOL_VERSION}"
    assert said["runtime null"] == "1"
    assert said["runtime litert"] == "cannot be used: /bin/false: ended with 1"
    assert said["free space"].endswith(f" MiB in {home_of_agent}")


def peer(folder: Path, tmp_path: Path, hello: str, **answers: object) -> None:
    (folder / "peer.yaml").write_text(f"transport: local\nagent: {write_peer(tmp_path, hello, **answers)}\n")


def test_check_of_an_agent_of_another_version_says_what_mends_it(folder, tmp_path):
    peer(folder, tmp_path, hello_line(protocol=7))
    remedy = 'run "edgepress device provision peer"'
    expected = f"edgepress: agent on peer speaks protocol 7, this host needs {PROTOCOL_VERSION}; {remedy}\n"
    assert device("check", "peer") == (1, "", expected)


def test_check_does_not_let_a_board_steer_the_terminal(folder, tmp_path):
    board = {**HELLO["device"], "model": "[red]Pi\x1b[2J\ud800[/red]", "ram_bytes": 1 << 30}
    status = {"home": "/", "free_bytes": 1, "jobs": []}
    state = {"state": {"utc": "", "governors": ["[red]fast\x1b[2J"]}, "utc_s": 0}
    peer(folder, tmp_path, hello_line(device=board), status=status, device_state=state)
    code, output, _ = device("check", "peer")
    assert code == 0
    assert "\x1b" not in output
    assert "[red]Pi [2J [/red] (armv7l, 4 cores, 1.0 GiB)" in output
    assert "[red]fast [2J: the clock moves with the load" in output


def test_check_of_what_is_no_agent_is_one_message(folder, tmp_path):
    peer(folder, tmp_path, "Welcome!\n")
    code, output, said = device("check", "peer")
    assert (code, output) == (1, "")
    assert said.startswith('edgepress: peer said "Welcome!" instead of the agent\'s hello')
    assert len(said.splitlines()) == 1


class TestThroughSshd:
    """``trust`` and ``check`` with a board that is there."""

    pytestmark = through_sshd

    @pytest.fixture(autouse=True)
    def added(self, sshd, tmp_path, home_of_agent):
        """The server as the device "pi4", trusted by nobody yet."""
        where = ["--host", sshd.host, "--port", sshd.port, "--user", sshd.user, "--identity-file", sshd.user_key]
        code, *_ = device("add", "pi4", *where, "--agent", write_agent(tmp_path), "--home", home_of_agent)
        assert code == 0

    def test_a_board_is_checked_only_after_its_key_was_shown_and_agreed_to(self, sshd, home):
        shown = fingerprint(sshd.host_keys[0])
        code, _, said = device("check", "pi4")
        assert code == 1
        assert shown in said
        assert 'run "edgepress device trust pi4"' in said
        code, output, _ = device("trust", "pi4", said="y\n")
        assert code == 0
        assert f"  ssh-ed25519 {shown}\n" in output
        assert output.endswith("Is it the same? [y/N]: pi4 is trusted\n")
        assert device("trust", "pi4") == (0, "pi4 was trusted already\n", "")
        code, output, _ = device("check", "pi4")
        assert code == 0
        assert ["pi4", "is up"] in rows(output)
        assert not (home / ".ssh" / "known_hosts").exists()

    def test_a_key_that_is_not_agreed_to_is_not_taken_over(self, sshd, home):
        code, output, said = device("trust", "pi4", said="n\n")
        assert code == 1
        assert fingerprint(sshd.host_keys[0]) in output
        assert said.startswith("edgepress: host key of pi4")
        assert said.endswith("was not taken over\n")
        assert not list(home.rglob("known_hosts"))

    def test_nobody_at_the_terminal_trusts_nothing(self, home):
        code, _, _ = device("trust", "pi4")
        assert code != 0
        assert not list(home.rglob("known_hosts"))

    def test_a_key_that_has_changed_is_taken_over_only_when_told_to_replace_it(self, sshd, keys):
        assert device("trust", "pi4", "--yes")[0] == 0
        sshd.stop()
        sshd.host_keys = [keys["host_b"]]
        sshd.start()
        for command in (["check", "pi4"], ["trust", "pi4", "--yes"]):
            code, _, said = device(*command)
            assert code == 1
            assert "has changed" in said
            assert fingerprint(keys["host_a"]) in said
            assert fingerprint(keys["host_b"]) in said
            assert '"edgepress device trust pi4 --replace"' in said
        code, output, _ = device("trust", "pi4", "--replace", said="y\n")
        assert code == 0
        assert fingerprint(keys["host_b"]) in output
        assert device("check", "pi4")[0] == 0

    def test_a_board_that_is_down_is_one_message(self, sshd):
        sshd.stop()
        for command in ("check", "trust"):
            code, output, said = device(command, "pi4")
            assert (code, output) == (1, "")
            assert "connection refused; check that it is up and that sshd listens on port" in said
            assert len(said.splitlines()) == 1
