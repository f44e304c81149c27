"""Relay of stdin and stdout to the daemon's socket, for a host that comes in over SSH (docker calls it dial-stdio)."""

from __future__ import annotations

import os
import socket
import threading
from contextlib import suppress
from pathlib import Path

from device_agent.daemon import connect_or_start
from device_agent.settings import Settings

_CHUNK_BYTES = 1 << 16


def relay(home: Path, settings: Settings) -> int:
    """Relay until the daemon closes the connection or stdout is gone; the end of stdin ends our half of it only."""
    connected = connect_or_start(home, settings)
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
