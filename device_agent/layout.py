"""Where a provisioned agent lies on a board, as the installer makes it and a running agent finds itself in it.

::

    <root>/current                    a link to releases/<id>: what runs
    <root>/previous                   a link to the release before it, if there was one
    <root>/releases/<id>/             whole: it got its name once all of it was on the disk
        release.json                  what is in it
        bin/edgepress-agent           starts the agent that lies beside it
        agent/device_agent/           the agent
        runtimes/<name>               a link to an environment
    <root>/environments/<id>-<python>/   of a runtime: pyvenv.cfg, bin/python, lib/python<X.Y>/site-packages
    <root>/service.json               how the agent is started, what was changed for that, and the homes that it had
    <root>/install.lock               held while something is installed or removed

``<id>`` is the first 16 digits of the SHA-256 of the tar that it came as.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from device_agent.checks import ProtocolError, shown
from device_agent.errors import AgentError

USER_ROOT = ".local/share/edgepress"
SYSTEM_ROOT = "/opt/edgepress"
SYSTEM_HOME = "/var/lib/edgepress"
SYSTEM_USER = "edgepress"
AGENT = "bin/edgepress-agent"
MANIFEST = "release.json"
SERVICE = "service.json"

_ID = re.compile(r"[0-9a-f]{16}")


def check_id(what: str, value: object) -> str:
    """Return ``value`` when it is the id of a release or an environment: 16 lower-case hexadecimal digits.

    Raises:
        ProtocolError: otherwise.
    """
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise ProtocolError(f"{what} is {shown(value)}; expected 16 lower-case hexadecimal digits")
    return value


def running_release() -> str | None:
    """Return the id of the release that this very agent runs from; None when it was installed in another way."""
    folder = _running_folder()
    return folder.name if folder else None


def running_root() -> Path | None:
    """Return the root of the installation that this very agent runs from; None as above."""
    folder = _running_folder()
    return folder.parents[1] if folder else None


def check_home(root: Path, home: Path) -> None:
    """Raise AgentError when the agents of the installation in ``root`` serve another folder than ``home``.

    Two that serve one board do not know of each other's leases.
    """
    path = root / SERVICE
    # Not by the protocol's reader, as in installing/services.py: a host that connects would wait for it to be loaded.
    try:
        homes = json.loads(path.read_bytes()).get("homes") if path.is_file() else None
        installed = homes[-1] if homes else str(home)
    except (ValueError, AttributeError, LookupError, TypeError) as error:
        raise AgentError(f"{path} does not say which folder the agent there serves: {error!r}") from error
    if installed != str(home):
        raise AgentError(f"this agent was installed to keep its files in {installed}, not in {home}")


def _running_folder() -> Path | None:
    # <root>/releases/<id>/agent/device_agent/layout.py
    folder = Path(__file__).resolve().parents[2]
    return folder if _ID.fullmatch(folder.name) and (folder / MANIFEST).is_file() else None
