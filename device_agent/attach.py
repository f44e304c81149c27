"""Relay of stdin and stdout to the daemon's socket, for a host that comes in over SSH (docker calls it dial-stdio)."""

from __future__ import annotations

import os
import socket
import sys
import threading
from contextlib import suppress
from pathlib import Path

from device_agent.layout import check_home, running_root
from device_agent.reaching import connect, connect_or_start
from device_agent.settings import Settings

_CHUNK_BYTES = 1 << 16

# The exit code when there is no daemon and none is to be started: EX_UNAVAILABLE of sysexits.h.
NOT_RUNNING = 69


def relay(home: Path, settings: Settings, start: bool) -> int:
    """Relay until the daemon closes the connection or stdout is gone; the end of stdin ends our half of it only.

    A daemon that does not run is started, unless ``start`` is False: then the exit code is ``NOT_RUNNING``.

    Raises:
        AgentError: if it does not start, or was installed for another folder than ``home``.
    """
    root = running_root()
    if root and start:
        check_home(root, home)
    connected = connect_or_start(home, settings) if start else connect(home)
    if connected is None:
        print(f"no agent serves {home}, and none was to be started", file=sys.stderr)
        return NOT_RUNNING
    threading.Thread(target=_send, args=(connected,), daemon=True).start()
    with suppress(OSError):
        for chunk in iter(lambda: connected.recv(_CHUNK_BYTES), b""):
            _write(chunk)
    # The other thread may sit in a read of stdin that nothing ends.
    os._exit(0)


def _send(connected: socket.socket) -> None:
    with suppress(OSError):
        for chunk in iter(lambda: os.read(0, _CHUNK_BYTES), b""):
            connected.sendall(chunk)
        connected.shutdown(socket.SHUT_WR)


def _write(chunk: bytes) -> None:
    while chunk:
        chunk = chunk[os.write(1, chunk) :]
