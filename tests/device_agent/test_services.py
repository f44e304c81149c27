"""How an installed agent is started: what the units say, and what is asked of systemd."""

import getpass
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path

import pytest

from device_agent.errors import AgentError
from device_agent.installing import programs
from device_agent.installing.services import UNIT, Changes, read_changes, remove_empty, with_home
from device_agent.installing.user_service import UserService
from device_agent.layout import AGENT, SYSTEM_HOME, SYSTEM_ROOT, SYSTEM_USER, USER_ROOT

USER = getpass.getuser()

# Records each call, and answers as it is told.
_RECORDER = """#!/bin/sh
echo "${0##*/} $*" >>"$RECORD"
case " $FAILING " in *" ${0##*/} "*) echo "refused by polkit"; exit 1 ;; esac
"""


def own_unit(name: str) -> str:
    return files("device_agent").joinpath("units", name).read_text()


def release_with(folder: Path, line: str = "") -> Path:
    """Write a release whose units say one thing more than ours."""
    units = folder / "agent" / "device_agent" / "units"
    units.mkdir(parents=True)
    for name in (UNIT, "edgepress-agent-user.service"):
        (units / name).write_text(own_unit(name) + line)
    return folder


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze on this machine")
@pytest.mark.parametrize("name", ["edgepress-agent.service", "edgepress-agent-user.service"])
def test_systemd_understands_every_line_of_the_unit(tmp_path, name):
    launcher = tmp_path / "agent"
    launcher.write_text("#!/bin/sh\n")
    launcher.chmod(0o755)
    text = own_unit(name).replace("@HOME@", "/home/pi/agent")
    for command in (f"{SYSTEM_ROOT}/current/{AGENT}", f"%h/{USER_ROOT}/current/{AGENT}"):
        text = text.replace(command, str(launcher))
    unit = tmp_path / UNIT
    unit.write_text(text.replace(f"User={SYSTEM_USER}", "User=root").replace(f"Group={SYSTEM_USER}", "Group=root"))
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True)
    assert [line for line in done.stderr.splitlines() if unit.name in line] == []


def test_the_systems_unit_is_fenced_in():
    lines = set(own_unit(UNIT).splitlines())
    assert lines >= {
        f"User={SYSTEM_USER}",
        f"ExecStart={SYSTEM_ROOT}/current/{AGENT} serve --home {SYSTEM_HOME}",
        f"StateDirectory={Path(SYSTEM_HOME).name}",
        "StateDirectoryMode=0700",
        "UMask=0077",
        "NoNewPrivileges=yes",
        "CapabilityBoundingSet=",
        "ProtectSystem=strict",
        "ProtectHome=yes",
        "PrivateTmp=yes",
        "MemoryMax=90%",
        "TasksMax=256",
        "RestrictAddressFamilies=AF_UNIX",
        "IPAddressDeny=any",
        "DevicePolicy=closed",
    }


@pytest.mark.parametrize("name", ["edgepress-agent.service", "edgepress-agent-user.service"])
def test_systemd_does_not_give_an_agent_up_that_ends_again_and_again(name):
    """The section is that of the unit: in that of the service systemd would pass over it."""
    section = own_unit(name).partition("[Unit]")[2].partition("[Service]")[0]
    assert "StartLimitIntervalSec=0" in section.splitlines()


def test_the_units_come_with_the_agents_package():
    names = {file.name for file in files("device_agent").joinpath("units").iterdir()}
    assert names == {"edgepress-agent.service", "edgepress-agent-user.service"}


class Systemd:
    """Stand-ins for systemctl, loginctl and sudo that write down what they are asked."""

    def __init__(self, folder: Path, monkeypatch) -> None:
        self.record = folder / "record"
        self.record.write_text("")
        for name in ("systemctl", "loginctl", "sudo"):
            (folder / name).write_text(_RECORDER)
            (folder / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
        monkeypatch.setenv("RECORD", str(self.record))
        self.monkeypatch = monkeypatch

    def refuse(self, *programs: str) -> None:
        self.monkeypatch.setenv("FAILING", " ".join(programs))

    @property
    def asked(self) -> list[str]:
        return self.record.read_text().splitlines()


@pytest.fixture
def systemd(tmp_path, monkeypatch):
    folder = tmp_path / "programs"
    folder.mkdir()
    return Systemd(folder, monkeypatch)


@pytest.fixture
def service(tmp_path, monkeypatch):
    """The service of a user who does not linger yet, on a board that has systemd."""
    home = tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))
    root = home / USER_ROOT
    root.mkdir(parents=True)
    running, lingering = tmp_path / "run-systemd", tmp_path / "linger"
    running.mkdir()
    lingering.mkdir()
    made = UserService(root, home / "agent-home", running, lingering)
    made.root = root
    made.release = release_with(tmp_path / "release")
    made.unit = home / ".config/systemd/user" / UNIT
    return made


def test_where_lingering_may_be_enabled_the_users_systemd_starts_the_agent(service, systemd, tmp_path):
    changes = service.put(Changes(), service.release)
    assert changes == Changes(unit=True, lingering=True) == read_changes(service.root)
    assert f"--home {tmp_path}/home/agent-home" in service.unit.read_text()
    service.restart(changes)
    assert systemd.asked == [
        f"loginctl enable-linger {USER}",
        "systemctl --user show-environment",
        "systemctl --user daemon-reload",
        f"systemctl --user enable {UNIT}",
        f"systemctl --user stop {UNIT}",
        f"systemctl --user start {UNIT}",
    ]


def test_where_it_may_not_the_agent_is_left_to_attach_and_the_reason_is_kept(service, systemd):
    systemd.refuse("loginctl", "sudo")
    changes = service.put(Changes(), service.release)
    assert (changes.unit, changes.lingering) == (False, False)
    assert changes.note == "its user's services end with the login (loginctl enable-linger: refused by polkit)"
    assert not service.unit.exists()


def test_what_polkit_refuses_sudo_may_allow(service, systemd):
    systemd.refuse("loginctl")
    assert service.put(Changes(), service.release).unit
    assert f"sudo -n loginctl enable-linger {USER}" in systemd.asked


def test_a_user_who_lingers_already_goes_on_lingering_after_the_removal(service, systemd, tmp_path):
    (tmp_path / "linger" / USER).touch()
    changes = service.put(Changes(), service.release)
    assert (changes.unit, changes.lingering) == (True, False)
    assert service.remove(changes) == [str(service.unit)]
    assert not any("disable-linger" in line for line in systemd.asked)


def test_a_release_is_started_by_its_own_unit(service, systemd, tmp_path):
    """What an older one has not heard of, it need not understand."""
    newer = release_with(tmp_path / "newer", "# newer\n")
    service.put(service.put(Changes(), newer), service.release)
    assert "# newer" not in service.unit.read_text()
    service.put(Changes(), newer)
    assert service.unit.read_text().endswith("# newer\n")


def test_where_a_unit_cannot_name_the_home_any_more_the_one_that_names_the_old_home_goes(service, systemd, tmp_path):
    changes = service.put(Changes(), service.release)
    moved = UserService(service.root, tmp_path / "my disk", tmp_path / "run-systemd", tmp_path / "linger")
    (tmp_path / "linger" / USER).touch()
    found = moved.put(with_home(changes, tmp_path / "my disk"), service.release)
    assert (found.unit, found.lingering, found.note) == (False, True, f"{tmp_path}/my disk cannot stand in a unit")
    assert found == read_changes(service.root)
    assert not service.unit.exists()


def test_the_present_home_is_the_last_and_each_is_kept_once():
    changes = Changes()
    for home in ("/a", "/b", "/a"):
        changes = with_home(changes, Path(home))
    assert changes.homes == ("/b", "/a")


def test_removal_undoes_all_that_was_done(service, systemd, tmp_path):
    changes = service.put(Changes(), service.release)
    # As a power cut leaves it while the unit is written anew.
    service.unit.with_name(f".tmp-{UNIT}").touch()
    (tmp_path / "linger" / USER).touch()
    assert service.remove(changes) == [str(service.unit), f"lingering of {USER}"]
    assert systemd.asked[-3:] == [
        f"systemctl --user disable --now {UNIT}",
        "systemctl --user daemon-reload",
        f"loginctl disable-linger {USER}",
    ]
    assert not (tmp_path / "home/.config").exists()


def test_what_was_changed_is_named_when_it_cannot_be_read(tmp_path):
    (tmp_path / "service.json").write_text("{")
    with pytest.raises(AgentError, match=r"service\.json does not say what was changed for the agent there: "):
        read_changes(tmp_path)


def test_without_systemd_there_is_no_unit_and_nothing_is_asked(service, systemd, tmp_path):
    (tmp_path / "run-systemd").rmdir()
    assert service.put(Changes(), service.release) == Changes(note="there is no systemd")
    assert systemd.asked == []


def test_a_program_that_is_missing_or_fails_is_told(systemd):
    assert programs.problem_of("no-such-program") == "there is no no-such-program here"
    systemd.refuse("loginctl")
    assert programs.problem_of("loginctl", "x") == "refused by polkit"
    assert programs.problem_of("systemctl", "x") is None


def test_only_folders_that_are_empty_are_removed(tmp_path):
    (tmp_path / "a/b/c").mkdir(parents=True)
    (tmp_path / "a/kept").touch()
    remove_empty(tmp_path / "a/b/c/gone", tmp_path)
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["kept"]
