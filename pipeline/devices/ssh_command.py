"""A command at the far end that ends by itself: what it printed, and how it ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import paramiko

MOST_OUTPUT_BYTES = 1 << 20
_CHUNK_BYTES = 1 << 16
_STATUS_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Ended:
    """A command that has ended; ``stdout`` and ``stderr`` are cut at ``MOST_OUTPUT_BYTES``."""

    exit_status: int
    stdout: bytes
    stderr: bytes


def read_to_end(channel: paramiko.Channel, on_line: Callable[[bytes], None] | None = None) -> Ended:
    """Read the output of the command on ``channel`` until it ends.

    Raises:
        TimeoutError: if nothing comes for as long as the channel's own time-out.
        EOFError: if the connection was cut before the command had ended.
    """
    stdout, stderr, begun = b"", b"", b""
    while chunk := channel.recv(_CHUNK_BYTES):
        stdout = (stdout + chunk)[:MOST_OUTPUT_BYTES]
        *lines, begun = (begun + chunk).split(b"\n")
        begun = begun[:MOST_OUTPUT_BYTES]
        if on_line:
            for line in lines:
                on_line(line)
        # Taken as it comes: a window that is full would stop the command.
        stderr = _more(channel, stderr)
    channel.status_event.wait(_STATUS_TIMEOUT_S)
    stderr = _more(channel, stderr)
    if channel.exit_status == -1:
        raise EOFError("the connection was cut")
    return Ended(channel.exit_status, stdout, stderr)


def _more(channel: paramiko.Channel, stderr: bytes) -> bytes:
    while channel.recv_stderr_ready():
        stderr = (stderr + channel.recv_stderr(_CHUNK_BYTES))[:MOST_OUTPUT_BYTES]
    return stderr
