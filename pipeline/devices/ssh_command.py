"""A command at the far end that ends by itself: what it printed, and how it ended; no board can make it endless."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import paramiko

MOST_OUTPUT_BYTES = 1 << 20
_CHUNK_BYTES = 1 << 16
_STATUS_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Patience:
    """How long a command may be silent, and how long it may take in all."""

    silence_s: float
    total_s: float


@dataclass(frozen=True)
class Ended:
    """A command that has ended, and all that it printed."""

    exit_status: int
    stdout: bytes
    stderr: bytes


def talk(
    channel: paramiko.Channel, stdin: bytes, patience: Patience, on_line: Callable[[bytes], None] | None = None
) -> Ended:
    """Give the command on ``channel`` its input, and read its output until it ends.

    Raises:
        TimeoutError: if it is silent for too long, or takes too long.
        EOFError: if the connection was cut before the command had ended, or it prints over ``MOST_OUTPUT_BYTES``.
    """
    return _Talk(channel, patience, on_line or (lambda line: None)).to_the_end(stdin)


class _Talk:
    def __init__(self, channel: paramiko.Channel, patience: Patience, on_line: Callable[[bytes], None]) -> None:
        self._channel = channel
        self._patience = patience
        self._deadline = time.monotonic() + patience.total_s
        self._on_line = on_line
        self._stdout = b""
        self._stderr = b""
        self._told = 0

    def to_the_end(self, stdin: bytes) -> Ended:
        channel = self._channel
        while stdin:
            self._wait_no_longer()
            stdin = stdin[channel.send(stdin) :]
        channel.shutdown_write()
        while chunk := self._receive():
            self._stdout += chunk
            self._tell_lines()
            # Taken as it comes: a window that is full would stop the command.
            self._take_stderr()
        channel.status_event.wait(_STATUS_TIMEOUT_S)
        self._take_stderr()
        if channel.exit_status == -1:
            raise EOFError("the connection was cut")
        return Ended(channel.exit_status, self._stdout, self._stderr)

    def _wait_no_longer(self) -> None:
        """Let the channel's next call take as long as there is patience for."""
        left_s = self._deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError(f"it did not end within {self._patience.total_s:g} s")
        self._channel.settimeout(min(left_s, self._patience.silence_s))

    def _receive(self) -> bytes:
        self._wait_no_longer()
        self._check_size()
        try:
            chunk: bytes = self._channel.recv(_CHUNK_BYTES)
        except TimeoutError as error:
            self._wait_no_longer()
            raise TimeoutError(f"it was silent for {self._patience.silence_s:g} s") from error
        return chunk

    def _tell_lines(self) -> None:
        *lines, begun = self._stdout[self._told :].split(b"\n")
        self._told = len(self._stdout) - len(begun)
        for line in lines:
            self._on_line(line)

    def _take_stderr(self) -> None:
        while self._channel.recv_stderr_ready():
            self._stderr += self._channel.recv_stderr(_CHUNK_BYTES)
            self._check_size()

    def _check_size(self) -> None:
        if len(self._stdout) + len(self._stderr) > MOST_OUTPUT_BYTES:
            raise EOFError(f"it printed more than {MOST_OUTPUT_BYTES} bytes")
