"""A sleep that another thread can end."""

from __future__ import annotations

import os
import select
from contextlib import suppress
from types import TracebackType


class Doorbell:
    """Wakes the one thread that sleeps at it; a ring that nobody sleeps through ends the next sleep.

    It sleeps in poll(2), whose time-out goes by the monotonic clock. That of ``Condition.wait`` goes by the wall clock
    before Python 3.11 (its "What's New", threading), so that setting the clock back would make the sleep longer.
    """

    def __init__(self) -> None:
        self._heard, self._rung = os.pipe()
        os.set_blocking(self._heard, False)
        os.set_blocking(self._rung, False)
        self._poller = select.poll()
        self._poller.register(self._heard, select.POLLIN)

    def __enter__(self) -> Doorbell:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def listen_for_end(self, connection: int) -> None:
        """Let the end of the ``connection``, a socket's file descriptor, end every sleep too."""
        self._poller.register(connection, select.POLLRDHUP)

    def ring(self) -> None:
        """End the sleep, or the next one."""
        with suppress(BlockingIOError):
            os.write(self._rung, b"!")

    def sleep(self, duration_s: float | None) -> None:
        """Sleep until ``ring``, at most ``duration_s`` seconds; None: without an end."""
        self._poller.poll(None if duration_s is None else max(0.0, duration_s * 1000))
        with suppress(BlockingIOError):
            os.read(self._heard, 4096)

    def close(self) -> None:
        """Give the file descriptors back; nobody may ring or sleep any more."""
        os.close(self._heard)
        os.close(self._rung)


def has_ended(connection: int) -> bool:
    """Tell whether the peer of a socket will send no more; what it has sent before may still be unread."""
    poller = select.poll()
    poller.register(connection, select.POLLRDHUP)
    return bool(poller.poll(0))
