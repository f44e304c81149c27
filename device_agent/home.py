"""The agent's folder: where it is and what lies in it.

::

    <home>/agent.sock       the socket, unless the path is too long for one (see ``socket_path``)
    <home>/agent.lock       held by the daemon for as long as it lives
    <home>/start.lock       held by an ``attach`` that starts the daemon
    <home>/agent.log        what a daemon started by ``attach`` has to say
    <home>/blobs/<sha256>   verified content; .part-<sha256> while it arrives
    <home>/jobs/<job id>/   spec.json, state.json, events.jsonl, blocks/, files/, result.json
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from device_agent.errors import AgentError
from device_agent.sha256 import sha256_of_bytes

HOME_NAMES = ("agent.sock", "agent.lock", "start.lock", "agent.log", "blobs", "jobs")

# sun_path has 108 bytes on Linux, the closing zero among them.
_SOCKET_PATH_BYTES = 107


def default_home() -> Path:
    """Return ``$XDG_DATA_HOME/edgepress-agent``, by default ``~/.local/share/edgepress-agent``."""
    data = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(data).expanduser() / "edgepress-agent"


def prepare_home(home: Path) -> None:
    """Make the agent's folders, readable by their owner alone.

    Raises:
        AgentError: if that is not permitted, or there is a file in the way.
    """
    try:
        for folder in (home, home / "blobs", home / "jobs"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        home.chmod(0o700)
    except OSError as error:
        raise AgentError(f"{home} cannot be the agent's home: {error.strerror}") from error


def socket_path(home: Path) -> Path:
    """Return the socket of the daemon that serves ``home``, the same for both sides.

    A path too long for a socket becomes a hashed name in ``/tmp/edgepress-<uid>``. Not in ``$XDG_RUNTIME_DIR``: an SSH
    session has it, a service or a cron job does not, and the two would not meet.

    Raises:
        AgentError: if that folder belongs to someone else.
    """
    home = home.resolve()
    path = home / "agent.sock"
    if len(os.fsencode(path)) <= _SOCKET_PATH_BYTES:
        return path
    folder = _socket_folder()
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise AgentError(f"{folder} is not a folder of ours alone; remove it, or choose a shorter --home than {home}")
    return folder / f"{sha256_of_bytes(os.fsencode(home))[:16]}.sock"


def remove_socket_folder() -> None:
    """Remove the folder in ``/tmp`` for sockets of homes with long paths, when it is there and empty."""
    with suppress(OSError):
        _socket_folder().rmdir()


def _socket_folder() -> Path:
    return Path(f"/tmp/edgepress-{os.getuid()}")  # noqa: S108 - whoever uses it checks that it is ours
