"""The seam between the host and a board: a line-based stream to the agent, and file transfer beside it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from pipeline.devices.handshakes import Handshakes
from pipeline.devices.inventory import Device

Progress = Callable[[int], None]
"""Called with the number of bytes transferred since the last call."""


class AgentStream(Protocol):
    """A two-way stream of lines to ``edgepress-agent attach``."""

    def write_line(self, line: bytes) -> None:
        """Send one line, newline included. Raises DeviceUnreachable when the connection is gone."""

    def read_line(self, timeout_s: float | None) -> bytes:
        """Return one line with its newline, waiting ``timeout_s`` at most; None: as long as the far end is alive.

        Raises DeviceUnreachable at the end, when cut off, or after the time-out.
        """

    def close(self) -> None:
        """End the stream; safe to call twice."""

    def interrupt(self) -> None:
        """Wake, from another thread, who waits for a line: the stream has ended. It is still to be closed."""


class Transport(Protocol):
    """One way to reach one device. Nothing is opened before the first call."""

    def open_stream(self) -> AgentStream:
        """Start ``edgepress-agent attach`` at the far end. Raises a DeviceError that says what is wrong."""

    def put_file(self, local: Path, remote: str, offset: int, progress: Progress) -> None:
        """Copy ``local`` from ``offset`` on to the end of ``remote``, truncated to ``offset`` first.

        Raises DeviceFull when there is no room, another DeviceError when the connection fails.
        """

    def get_file(self, remote: str, local: Path, size_bytes: int, progress: Progress) -> None:
        """Copy the device's file ``remote``, which has ``size_bytes``, to ``local``: whole or not at all.

        Raises a DeviceError when it is missing or of another size, StorageError when this machine's disk is full.
        """

    def close(self) -> None:
        """Close every connection; safe to call twice. The next call opens them again."""


def open_transport(device: Device, handshakes: Handshakes | None = None, start: bool = True) -> Transport:
    """Return the transport that reaches ``device``; nothing is connected yet.

    ``handshakes`` bounds how many connect at once, where there are many. With ``start`` False no agent is started.
    """
    # Imported here: the SSH client alone takes a third of a second.
    if device.transport == "local":
        from pipeline.devices.local import local_transport

        return local_transport(device, start)
    from pipeline.devices.ssh import ssh_transport

    return ssh_transport(device, handshakes, start)
