"""How a provisioned agent is started: by a unit of the user's systemd, by one of the system's, or by ``attach``.

What was changed on the board for that is written down before it is changed, so that ``remove`` undoes all of it and
nothing else, also after a cut in between.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from device_agent.errors import AgentError
from device_agent.files import write_file
from device_agent.layout import SERVICE
from device_agent.protocol import from_json, to_json

UNIT = "edgepress-agent.service"


@dataclass(frozen=True)
class Changes:
    """What was changed on the board; ``note`` is for the person who provisions.

    ``homes`` are all folders that an agent from here was ever told to keep its files in, the present one last.
    """

    unit: bool = False
    lingering: bool = False
    user: bool = False
    sudo_rule: bool = False
    note: str = ""
    homes: tuple[str, ...] = ()


class Service(Protocol):
    """One way to start the agent."""

    def put(self, changes: Changes, release: Path) -> Changes:
        """Make the board start the agent of ``release`` by itself, as far as it lets us; return what is changed by now.

        A release has its own units: an older one may not know what a newer unit asks of it.
        """
        ...

    def restart(self, changes: Changes) -> None:
        """End the agent that runs, and start the current release where something other than ``attach`` does that."""

    def remove(self, changes: Changes) -> list[str]:
        """End the agent, undo ``changes``, and return what was removed."""
        ...


def read_changes(root: Path) -> Changes:
    """Return what was changed on the board for the installation in ``root``.

    Raises:
        AgentError: if what was written down makes no sense.
    """
    path = root / SERVICE
    try:
        return from_json(Changes, json.loads(path.read_bytes())) if path.is_file() else Changes()
    except ValueError as error:
        raise AgentError(f"{path} does not say what was changed for the agent there: {error}") from error


def is_installed(root: Path) -> bool:
    """Say whether anything was installed in ``root``, be it only in part, or has not been removed in full."""
    return (root / SERVICE).is_file() or (root / "releases").is_dir()


def forget_changes(root: Path) -> None:
    """Forget what was changed on the board, once all of it is undone."""
    (root / SERVICE).unlink(missing_ok=True)


def note_changes(root: Path, changes: Changes) -> Changes:
    """Write down what is about to be changed, and return it."""
    write_file(root / SERVICE, json.dumps(to_json(changes)).encode())
    return changes


def with_home(changes: Changes, home: Path) -> Changes:
    """Return ``changes`` with ``home`` as the present one."""
    return replace(changes, homes=(*(other for other in changes.homes if other != str(home)), str(home)))


def all_homes(changes: Changes, home: Path) -> list[Path]:
    """Return every folder that an agent from here may serve, ``home`` among them and last."""
    return [Path(known) for known in with_home(changes, home).homes]


def unit_text(release: Path, name: str) -> str:
    """Return one of the unit files that come with the agent of ``release``."""
    return (release / "agent" / "device_agent" / "units" / name).read_text(encoding="utf-8")


def remove_file(path: Path) -> list[str]:
    """Remove a file that was written by ``write_file``, and what a cut has left of that; return what was removed."""
    path.with_name(f".tmp-{path.name}").unlink(missing_ok=True)
    try:
        path.unlink()
    except FileNotFoundError:
        return []
    return [str(path)]


def remove_empty(folder: Path, stop: Path) -> None:
    """Remove ``folder`` and what is above it, below ``stop``, as far as they are empty."""
    while stop in folder.parents:
        try:
            folder.rmdir()
        except FileNotFoundError:
            pass  # gone already; what is above it may be empty
        except OSError:
            return
        folder = folder.parent
