"""The way to the daemon of a home: through its socket; whoever needs it first starts it.

What is loaded here is loaded each time a host connects: next to nothing, for on a small board that takes seconds.
"""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from device_agent.errors import AgentError
from device_agent.home import prepare_home, socket_path
from device_agent.settings import Settings


def connect(home: Path) -> socket.socket | None:
    """Return a connection to the daemon that serves ``home``, or None when there is none."""
    connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connected.connect(str(socket_path(home)))
    except (FileNotFoundError, ConnectionRefusedError):
        connected.close()
        return None
    except OSError as error:
        connected.close()
        raise AgentError(f"{socket_path(home)}: {error.strerror}") from error
    return connected


def connect_or_start(home: Path, settings: Settings) -> socket.socket:
    """Return a connection to the daemon that serves ``home``; start it as told when there is none.

    Of several callers at once the first starts it and the others wait.

    Raises:
        AgentError: if it cannot be started, with the last line of its log.
    """
    connected = connect(home)
    if connected:
        return connected
    prepare_home(home)
    with (home / "start.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        connected = connect(home)
        if connected:
            return connected
        _start_detached(home, settings)
        connected = connect(home)
    if not connected:
        raise AgentError(f"the agent did not start: {_last_line(home / 'agent.log')}")
    return connected


def _start_detached(home: Path, settings: Settings) -> None:
    """Start the daemon in a session of its own and wait until it listens or has ended."""
    command = [sys.executable, "-m", "device_agent", "serve", "--home", str(home)]
    command += [f"--quota-mib={settings.quota_mib}", f"--root={settings.root}"]
    command += [f"--runtime={name}={python}" for name, python in settings.pythons.items()]
    ready, signalled = os.pipe()
    with (home / "agent.log").open("ab") as log_file:
        subprocess.Popen(
            [*command, f"--ready-fd={signalled}"],
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=log_file,
            stderr=log_file,
            pass_fds=[signalled],
            start_new_session=True,
        )
    os.close(signalled)
    with os.fdopen(ready, "rb") as stream:
        # Ends when the daemon closes its side, which it does once it listens, or by ending.
        stream.read()


def _last_line(path: Path) -> str:
    with suppress(OSError):
        lines = path.read_text(errors="replace").splitlines()
        if lines:
            return lines[-1]
    return f"{path} is empty"
