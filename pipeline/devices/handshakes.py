"""How many SSH handshakes are under way at once, when many boards are connected to side by side."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

# OpenSSH's sshd begins to hang up on newcomers when ten have not logged in yet (MaxStartups 10:30:100).
WITH_ONE_SERVER = 6
# Each takes this machine's processor for its key exchange: side by side, many would all be late.
AT_ONCE = 16


class Handshakes:
    """A bound for those who connect with it: a few at once in all, and fewer with one and the same server."""

    def __init__(self, at_once: int = AT_ONCE, with_one_server: int = WITH_ONE_SERVER) -> None:
        self._all = threading.BoundedSemaphore(at_once)
        self._with_one_server = with_one_server
        self._servers: dict[tuple[str, int], threading.BoundedSemaphore] = {}
        self._lock = threading.Lock()

    @contextmanager
    def with_server(self, host: str, port: int) -> Iterator[None]:
        """Wait for a turn with that server, such as a jump host before many boards, and have it until logged in."""
        with self._lock:
            server = self._servers.setdefault((host, port), threading.BoundedSemaphore(self._with_one_server))
        with server:
            yield

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for a turn of all; a server that does not answer at all takes none."""
        with self._all:
            yield
