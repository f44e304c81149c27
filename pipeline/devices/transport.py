"""The seam between the host and a board: a line-based stream to the agent, and file transfer beside it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

Progress = Callable[[int], None]
"""Called with the number of bytes transferred since the last call."""


class AgentStream(Protocol):
    """A two-way stream of lines to ``edgepress-agent attach``."""

    def write_line(self, line: bytes) -> None:
        """Send one line, newline included. Raises DeviceUnreachable when the connection is gone."""

    def read_line(self) -> bytes:
        """Return one line with its newline. Raises DeviceUnreachable at the end, when cut off or after a time-out."""

    def close(self) -> None:
        """End the stream; safe to call twice."""


class Transport(Protocol):
    """One way to reach one device. Nothing is opened before the first call."""

    def open_stream(self) -> AgentStream:
        """Start ``edgepress-agent attach`` at the far end. Raises a DeviceError that says what is wrong."""

    def put_file(self, local: Path, remote: str, offset: int, progress: Progress) -> None:
        """Copy ``local`` from ``offset`` on to the end of ``remote``, truncated to ``offset`` first.

        Raises DeviceFull when there is no room, another DeviceError when the connection fails.
        """

    def get_file(self, remote: str, local: Path, progress: Progress) -> None:
        """Copy the device's file ``remote`` to ``local``."""

    def close(self) -> None:
        """Close every connection; safe to call twice."""
