"""The agent of the whole board: a unit with a user of its own, whom one rule of sudo lets its installer become."""

from __future__ import annotations

import os
import pwd
import re
import time
from dataclasses import replace
from pathlib import Path

from device_agent.errors import AgentError
from device_agent.files import write_file
from device_agent.installing.programs import problem_of, run, succeeds
from device_agent.installing.services import UNIT, Changes, note_changes, remove_file, unit_text
from device_agent.layout import SYSTEM_HOME, SYSTEM_ROOT, SYSTEM_USER

SUDO_RULE = Path("/etc/sudoers.d/edgepress-agent")
_UNIT_FILE = Path("/etc/systemd/system") / UNIT
_PATIENCE_S = 10.0
# A name that needs no quoting in sudoers(5).
_PLAIN_USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}")


class SystemService:
    """Of the system: a unit with a user of its own; whoever installs it may use the agent through one rule of sudo."""

    def put(self, changes: Changes, release: Path) -> Changes:
        """Install and enable the unit, its user and the rule; see ``Service``."""
        root = Path(SYSTEM_ROOT)
        if not Path("/run/systemd/system").is_dir():
            raise AgentError("there is no systemd here; provision it as an ordinary user, without --system")
        if not _has_user():
            changes = note_changes(root, replace(changes, user=True))
            run("useradd", "--system", "--user-group", "--no-create-home", "--home-dir", SYSTEM_HOME,
                "--shell", "/usr/sbin/nologin", SYSTEM_USER)  # fmt: skip
        for group in ("video", "render"):
            # For the firmware's and the GPU's devices, where there are any.
            if succeeds("getent", "group", group):
                run("usermod", "--append", "--groups", group, SYSTEM_USER)
        changes = self._allow(changes)
        changes = note_changes(root, replace(changes, unit=True))
        write_file(_UNIT_FILE, unit_text(release, UNIT).encode())
        _UNIT_FILE.chmod(0o644)
        run("systemctl", "daemon-reload")
        run("systemctl", "enable", UNIT)
        return changes

    def restart(self, changes: Changes) -> None:
        """Restart the unit; see ``Service``."""
        run("systemctl", "restart", UNIT)

    def remove(self, changes: Changes) -> list[str]:
        """Undo what ``put`` did; see ``Service``."""
        removed: list[str] = []
        if changes.unit:
            problem_of("systemctl", "disable", "--now", UNIT)
            removed += remove_file(_UNIT_FILE)
            problem_of("systemctl", "daemon-reload")
            problem_of("systemctl", "reset-failed", UNIT)
        if changes.sudo_rule:
            removed += remove_file(SUDO_RULE)
        if changes.user and _has_user():
            _delete_user()
            removed.append(f"the user {SYSTEM_USER}")
        return removed

    def _allow(self, changes: Changes) -> Changes:
        """Let the person who came by sudo run the agent's own command as its user, and nothing else of it."""
        user = os.environ.get("SUDO_USER", "root")
        if user == "root":
            return changes
        if not _PLAIN_USER.fullmatch(user):
            return replace(changes, note=f"no rule for sudo was written, since {user!r} cannot stand in one")
        changes = note_changes(Path(SYSTEM_ROOT), replace(changes, sudo_rule=True))
        text = f"{user} ALL=({SYSTEM_USER}) NOPASSWD: {SYSTEM_ROOT}/current/bin/edgepress-agent\n"
        checked = Path(SYSTEM_ROOT) / ".tmp-sudo-rule"
        checked.write_text(text)
        # A rule that cannot be read would lock everybody out of sudo.
        run("visudo", "-c", "-q", "-f", str(checked))
        checked.unlink()
        write_file(SUDO_RULE, text.encode())
        SUDO_RULE.chmod(0o440)
        return changes


def _delete_user() -> None:
    """Delete the user as soon as the last of its processes has ended."""
    deadline = time.monotonic() + _PATIENCE_S
    while (problem := problem_of("userdel", SYSTEM_USER)) and time.monotonic() < deadline:
        time.sleep(0.2)
    if problem:
        raise AgentError(f"userdel {SYSTEM_USER}: {problem}")


def _has_user() -> bool:
    try:
        pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        return False
    return True
