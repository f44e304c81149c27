"""What the host makes of an installer's words, whatever they are."""

import json
from contextlib import nullcontext

import pytest

from device_agent.releases import Part
from pipeline.devices.inventory import Device
from pipeline.devices.provisioning import provision
from pipeline.devices.provisioning.answers import Installed, Prepared
from pipeline.devices.provisioning.bundle import Bundle, Sent
from pipeline.devices.provisioning.delivery import SPARE_BYTES, Held, push_bundle
from pipeline.devices.provisioning.installer import Installer, place_on
from pipeline.devices.provisioning.probe import parse_probe
from pipeline.devices.provisioning.provision import Options, _installation
from pipeline.devices.ssh import sftp_command
from pipeline.devices.ssh_command import Ended
from pipeline.errors import DeviceFull, DeviceUnreachable, ProvisioningFailed
from pipeline.reporting.progress import NoProgress

PYTHON = "python=3.11.2 cpython 64 2.36 - - /usr/bin/python3.11\n"
PROBE = "probe=1\nmachine=aarch64\nuser=pi\nhome=/home/pi\nsudo=yes\nsystemd=252\ndone=1\n"


class FarEnd:
    """A board that answers each command with the same words."""

    def __init__(self, *lines: str, status: int = 0, stderr: bytes = b"") -> None:
        self.lines, self.status, self.stderr = lines, status, stderr
        self.asked: list[tuple[str, ...]] = []

    def run(self, command, stdin, patience, on_line=None):
        self.asked.append(command)
        for line in self.lines:
            on_line(line.encode())
        return Ended(self.status, b"", self.stderr)


def installer_of(far_end: FarEnd, probe: str = PROBE, is_system: bool = False) -> Installer:
    place = place_on(parse_probe(probe, "pi4"), is_system, None)
    return Installer(far_end, "pi4", place, "/usr/bin/python3.11")


def test_stages_are_passed_on_and_the_result_is_returned():
    far_end = FarEnd(
        "a word of the shell's own",
        '{"stage": "unpack"}',
        '{"result": {"release": "0123456789abcdef", "note": "", "unit": true}}',
    )
    stages = []
    installed = installer_of(far_end).ask(Installed, "install", "--release", "x", on_stage=stages.append)
    assert (installed.release, installed.unit, stages) == ("0123456789abcdef", True, ["unpack"])


def test_the_command_is_run_isolated_by_the_boards_python():
    far_end = FarEnd('{"error": "x"}')
    with pytest.raises(ProvisioningFailed):
        installer_of(far_end).ask(Installed, "install", "--holder", "ana@laptop, provision")
    [asked] = far_end.asked
    assert asked == (
        "/usr/bin/python3.11", "-I", "-S", "-B", "/home/pi/.local/share/edgepress/incoming/installer.pyz", "install",
        "--home", "/home/pi/.local/share/edgepress-agent", "--incoming", "/home/pi/.local/share/edgepress/incoming",
        "--holder", "ana@laptop, provision",
    )  # fmt: skip


def test_for_the_whole_system_all_but_a_look_needs_root():
    far_end = FarEnd('{"error": "x"}')
    installer = installer_of(far_end, is_system=True)
    for command in ("prepare", "install"):
        with pytest.raises(ProvisioningFailed):
            installer.ask(Installed, command)
    assert [asked[0] for asked in far_end.asked] == ["/usr/bin/python3.11", "sudo"]
    assert "--system" in far_end.asked[0]
    as_root = FarEnd('{"error": "x"}')
    with pytest.raises(ProvisioningFailed):
        installer_of(as_root, PROBE.replace("sudo=yes", "sudo=root"), is_system=True).ask(Installed, "install")
    assert as_root.asked[0][0] == "/usr/bin/python3.11"


def test_what_the_installer_says_is_wrong_is_passed_on_as_one_line():
    with pytest.raises(ProvisioningFailed) as failed:
        installer_of(FarEnd('{"error": "no\\u001b[31m\\nroom"}', status=1)).ask(Installed, "install")
    assert str(failed.value) == "pi4: no [31m room"


@pytest.mark.parametrize(
    ("lines", "stderr", "said"),
    [
        ((), b"bash: python3.11: not found\n", "the installer ended with 127: bash: python3.11: not found"),
        (('{"result": {"release": "../x", "note": "", "unit": true}}',), b"", "release is '../x'"),
        (('{"result": 5}', "[1]", "{"), b"", "the installer ended with 127: "),
        (("[" * 200_000,), b"", "the installer ended with 127: "),
    ],
)
def test_an_answer_that_makes_no_sense_is_told_with_what_was_said(lines, stderr, said):
    with pytest.raises(ProvisioningFailed) as failed:
        installer_of(FarEnd(*lines, status=127, stderr=stderr)).ask(Installed, "install")
    assert said in str(failed.value)


def test_numbers_that_make_no_sense_are_refused():
    part = {"sha256": "0" * 64, "is_here": False, "part_bytes": -1, "part_sha256": None}
    found = {"parts": [part], "incoming_free_bytes": 1, "root_free_bytes": 1, "same_disk": True}
    with pytest.raises(ProvisioningFailed, match="part_bytes is -1"):
        installer_of(FarEnd(json.dumps({"result": found}))).ask(Prepared, "prepare")


@pytest.mark.parametrize(
    ("probe", "is_system", "said"),
    [
        (PROBE.replace("systemd=252\n", ""), True, "pi4: there is no systemd there; provision it without --system"),
        (PROBE.replace("sudo=yes", "sudo=password"), True, "pi4: sudo needs a password for pi; provision it without"),
        (PROBE.replace("sudo=yes", "sudo=no"), True, "pi4: sudo is not there for pi; provision it without --system"),
        (
            "user_release=0123456789abcdef\n" + PROBE,
            True,
            'pi4 has an agent for its user already; run "edgepress device unprovision pi4" first',
        ),
        ("system_release=0123456789abcdef\n" + PROBE, False, "pi4 has an agent for the whole system already; run"),
    ],
)
def test_what_cannot_be_done_on_a_board_is_told_before_anything_is_sent(probe, is_system, said):
    with pytest.raises(ProvisioningFailed) as refused:
        _installation(parse_probe(probe, "pi4"), is_system, "pi4")
    assert str(refused.value).startswith(said)


class Recorder(FarEnd):
    """A board of which is kept how it was reached, and what was sent there."""

    def __init__(self, probe: str) -> None:
        super().__init__('{"result": {"removed": []}}')
        self.probe, self.device, self.sent = probe, None, []

    def reach(self, device):
        self.device = device
        return self

    def run(self, command, stdin, patience, on_line=None):
        if command[0] == "/bin/sh":
            return Ended(0, self.probe.encode(), b"")
        return super().run(command, stdin, patience, on_line or (lambda line: None))

    def put_file(self, local, remote, offset, progress):
        self.sent.append(remote)

    def close(self):
        pass


@pytest.fixture
def reach(monkeypatch):
    """A function that takes a board's answer to the probe, and has it reached by whoever provisions."""

    def reach(probe: str) -> Recorder:
        board = Recorder(probe + PYTHON)
        monkeypatch.setattr(provision, "ssh_transport", board.reach)
        monkeypatch.setattr(provision, "leased", lambda *_: nullcontext(Held((), lambda: None)))
        return board

    return reach


def test_the_installer_is_sent_with_the_rights_of_whoever_logs_in_and_not_with_the_agents(reach):
    board = reach(PROBE)
    device = Device("pi4", "ssh", host="pi4", agent="/opt/edgepress/current/bin/edgepress-agent", as_user="edgepress")
    assert provision.unprovision(device, Options()) == []
    assert sftp_command(board.device) == ()
    assert board.sent == ["/home/pi/.local/share/edgepress/incoming/installer.pyz"]
    assert board.asked[-1][:2] == ("sudo", "-n")


@pytest.mark.parametrize(("told", "is_system"), [("", False), ("system_begun=yes\n", True)])
def test_what_a_cut_has_left_of_a_systems_installation_is_removed_although_the_devices_file_knows_nothing(
    reach, told, is_system
):
    board = reach(told + PROBE)
    provision.unprovision(Device("pi4", "ssh", host="pi4"), Options(discard=True))
    assert ("--system" in board.asked[-1]) == is_system
    assert board.asked[-1][-1] == "--discard"


def test_a_new_agent_that_does_not_answer_is_told_also_when_the_board_cannot_go_back():
    far_end = Recorder(PROBE)
    far_end.lines = ('{"error": "systemctl restart: it failed"}',)
    probe, device = parse_probe(PROBE, "pi4"), Device("pi4", "ssh", host="pi4")
    place = place_on(probe, False, None)
    board = provision._Board(
        device, device, probe, place, far_end, Installer(far_end, "pi4", place, "/usr/bin/python3.11")
    )
    installed = Installed("0" * 16, "", unit=True, previous="1" * 16)
    told = provision._rolled_back(board, installed, Options(), DeviceUnreachable("no agent on pi4"))
    assert str(told) == (f"no agent on pi4; could not go back to release {'1' * 16}: pi4: systemctl restart: it failed")


def test_a_home_of_the_devices_file_is_where_the_agents_files_go():
    device = Device("pi4", "ssh", home="/mnt/ssd/edgepress")
    probe = parse_probe(PROBE, "pi4")
    assert place_on(probe, False, device.home).home == "/mnt/ssd/edgepress"
    assert place_on(probe, True, device.home).home == "/var/lib/edgepress"
    assert place_on(probe, False, "/mnt//ssd/").home == "/mnt/ssd"


@pytest.mark.parametrize(("root_free", "same_disk"), [(0, False), (SPARE_BYTES + 150, True)])
def test_nothing_is_sent_when_the_disk_that_the_release_goes_to_has_no_room(tmp_path, root_free, same_disk):
    """With --system that is the disk of /opt, and what is sent goes to the home of whoever logs in."""
    (tmp_path / "part").write_bytes(b"x" * 100)
    bundle = Bundle(Sent(Part("", "0" * 16, "0" * 64), tmp_path / "part", 100), ())
    part = {"sha256": "0" * 64, "is_here": False, "part_bytes": 0, "part_sha256": None}
    found = {"parts": [part], "incoming_free_bytes": 1 << 30, "root_free_bytes": root_free, "same_disk": same_disk}
    board = Recorder(PROBE)
    board.lines = (json.dumps({"result": found}),)
    held = Held((), lambda: None)
    with pytest.raises(
        DeviceFull, match=f"pi4 has no room for the agent: [0-9]+ bytes are needed, {root_free} are free"
    ):
        push_bundle(board, installer_of(board, is_system=True), bundle, "pi4", held, NoProgress())
    assert board.sent == []
