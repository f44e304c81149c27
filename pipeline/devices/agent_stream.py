"""What the streams of all transports share: cutting bytes into lines, and saying why a stream ended."""

from __future__ import annotations

from device_agent.attach import NOT_RUNNING
from device_agent.protocol import MAX_MESSAGE_BYTES
from pipeline.errors import AgentMissing, DeviceError, DeviceUnreachable

KEPT_STDERR_BYTES = 4096
INSTALL = 'install edgepress-agent there, or give its path as "agent" in the device\'s file'


class LineBuffer:
    """Bytes as they arrive, handed out as lines no longer than the protocol allows."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._bytes = bytearray()

    def feed(self, chunk: bytes) -> None:
        """Add what has arrived."""
        self._bytes += chunk

    def take_line(self) -> bytes | None:
        """Return the next whole line, or None when it has not all arrived.

        Raises:
            DeviceError: if the far end sends a line longer than ``MAX_MESSAGE_BYTES``.
        """
        end = self._bytes.find(b"\n", 0, MAX_MESSAGE_BYTES) + 1
        if not end:
            if len(self._bytes) >= MAX_MESSAGE_BYTES:
                raise DeviceError(f"{self._title}: the agent sent a line of more than {MAX_MESSAGE_BYTES} bytes")
            return None
        line = bytes(self._bytes[:end])
        del self._bytes[:end]
        return line


def printable(text: str, limit: int = 500) -> str:
    """Return what a device said as one line that cannot steer the terminal."""
    line = "".join(char if char.isprintable() else " " for char in text)
    line = " ".join(line.split())
    return line if len(line) <= limit else line[: limit - 3] + "..."


def stream_ended(
    title: str, spoke: bool, exit_status: int | None, stderr: bytes, remedy: str = INSTALL
) -> DeviceUnreachable:
    """Return the error that says why a stream to the agent ended.

    Args:
        title: the device, as messages name it.
        spoke: whether the agent had said anything.
        exit_status: of ``edgepress-agent attach``; None when the connection broke before it was known.
        stderr: the last that it wrote there.
        remedy: what to do when there is no agent.
    """
    said = printable(stderr.decode("utf-8", "replace"))
    if exit_status is None:
        return DeviceUnreachable(f"the connection to {title} was cut" + (f": {said}" if said else ""))
    ending = f"{said} (exit status {exit_status})" if said else f"it ended with exit status {exit_status}"
    if spoke:
        return DeviceUnreachable(f"the agent on {title} has gone: {ending}")
    if exit_status == NOT_RUNNING:
        return AgentMissing(f"no agent runs on {title}: {ending}", is_installed=True)
    return AgentMissing(f"no agent on {title}: {ending}; {remedy}")
