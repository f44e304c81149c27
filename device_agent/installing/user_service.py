"""The agent of an ordinary user: a unit of the user's systemd where that outlives logins, otherwise ``attach``."""

from __future__ import annotations

import os
import pwd
import re
import time
from dataclasses import replace
from pathlib import Path

from device_agent.errors import AgentError
from device_agent.files import write_file
from device_agent.installing.programs import is_there, problem_of, succeeds
from device_agent.installing.running import end_daemon
from device_agent.installing.services import (
    UNIT,
    Changes,
    all_homes,
    note_changes,
    remove_empty,
    remove_file,
    unit_text,
)
from device_agent.layout import USER_ROOT

_LINGERING = Path("/var/lib/systemd/linger")
_MANAGER_PATIENCE_S = 20.0
# What needs no quoting in a unit.
_PLAIN_PATH = re.compile(r"/[A-Za-z0-9_./+@-]{1,400}")


class UserService:
    """Of an ordinary user: a unit where systemd lets users' services outlive their logins, otherwise ``attach``."""

    def __init__(
        self, root: Path, home: Path, systemd: Path = Path("/run/systemd/system"), lingering: Path = _LINGERING
    ) -> None:
        self._root = root
        self._home = home
        self._systemd = systemd
        self._lingering = lingering
        self._unit = Path.home() / ".config" / "systemd" / "user" / UNIT
        self._user = pwd.getpwuid(os.getuid()).pw_name

    def put(self, changes: Changes, release: Path) -> Changes:
        """Install and enable the unit; see ``Service``."""
        why_not = self._why_no_unit()
        if why_not:
            return self._without_unit(changes, why_not)
        if not (self._lingering / self._user).exists():
            note_changes(self._root, replace(changes, lingering=True))
            problem = self._loginctl("enable-linger")
            if problem:
                why_not = f"its user's services end with the login (loginctl enable-linger: {problem})"
                return self._without_unit(changes, why_not)
            changes = replace(changes, lingering=True)
        if not self._manager_answers():
            return self._without_unit(changes, "its user's systemd does not answer")
        changes = note_changes(self._root, replace(changes, unit=True, note=""))
        self._unit.parent.mkdir(parents=True, exist_ok=True)
        text = unit_text(release, "edgepress-agent-user.service").replace("@HOME@", str(self._home))
        write_file(self._unit, text.encode())
        self._systemctl("daemon-reload")
        self._systemctl("enable", UNIT)
        return changes

    def restart(self, changes: Changes) -> None:
        """Restart the unit, or end the daemon that ``attach`` has started; see ``Service``."""
        if changes.unit:
            self._systemctl("stop", UNIT)
        for home in all_homes(changes, self._home):
            end_daemon(home)
        if changes.unit:
            self._systemctl("start", UNIT)

    def remove(self, changes: Changes) -> list[str]:
        """Undo what ``put`` did; see ``Service``."""
        removed = self._remove_unit(changes)
        ended = [end_daemon(home) for home in all_homes(changes, self._home)]
        if any(ended):
            removed.append("the agent that ran")
        if changes.lingering and (self._lingering / self._user).exists():
            self._loginctl("disable-linger")
            removed.append(f"lingering of {self._user}")
        return removed

    def _without_unit(self, changes: Changes, why_not: str) -> Changes:
        # One from an earlier installation would start the agent in the home that it had then.
        self._remove_unit(changes)
        return note_changes(self._root, replace(changes, unit=False, note=why_not))

    def _remove_unit(self, changes: Changes) -> list[str]:
        if not changes.unit:
            return []
        # Without a manager to be told, the files are all there is of it.
        self._systemctl("disable", "--now", UNIT, must=False)
        removed = remove_file(self._unit)
        (self._unit.parent / "default.target.wants" / UNIT).unlink(missing_ok=True)
        remove_empty(self._unit.parent / "default.target.wants", Path.home())
        self._systemctl("daemon-reload", must=False)
        return removed

    def _why_no_unit(self) -> str:
        if not self._systemd.is_dir() or not is_there("systemctl"):
            return "there is no systemd"
        if self._root != Path.home() / USER_ROOT:
            return f"its folder is not ~/{USER_ROOT}"
        if not _PLAIN_PATH.fullmatch(str(self._home)):
            return f"{self._home} cannot stand in a unit"
        return ""

    def _loginctl(self, verb: str) -> str | None:
        # polkit may refuse it to an ordinary user; one who may use sudo without a password can do it all the same.
        problem = problem_of("loginctl", verb, self._user)
        return problem if problem and not succeeds("sudo", "-n", "loginctl", verb, self._user) else None

    def _manager_answers(self) -> bool:
        """Wait for the user's manager, which lingering starts."""
        deadline = time.monotonic() + _MANAGER_PATIENCE_S
        while not succeeds("systemctl", "--user", "show-environment", environment=_session()):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.5)
        return True

    def _systemctl(self, *words: str, must: bool = True) -> None:
        problem = problem_of("systemctl", "--user", *words, environment=_session())
        if problem and must:
            raise AgentError(f"systemctl --user {' '.join(words)}: {problem}")


def _session() -> dict[str, str]:
    runtime = f"/run/user/{os.getuid()}"
    return {"XDG_RUNTIME_DIR": runtime, "DBUS_SESSION_BUS_ADDRESS": f"unix:path={runtime}/bus"}
