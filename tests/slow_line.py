"""A line between here and a server that is slow, counts what goes over it, and can be cut: a TCP proxy on loopback."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from typing import Self

# Little, so that whoever sends feels the rate and not the room in between.
_BUFFER_BYTES = 1 << 16
_PIECE_BYTES = 1 << 14


class SlowLine:
    """Carries connections to a server; to be used as a context manager.

    Args:
        host: the server.
        port: its port.
        bytes_per_s: how fast bytes go there, all connections together; 0 for as fast as they come.
        cut_after: how many bytes go there before all connections are cut, once; 0 for never.
    """

    def __init__(self, host: str, port: int, bytes_per_s: float = 0, cut_after: int = 0) -> None:
        self._server = (host, port)
        self._bytes_per_s = bytes_per_s
        self._cut_after = cut_after
        self._lock = threading.Lock()
        self._free_at_s = time.monotonic()
        self._open: list[socket.socket] = []
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(128)
        self.port = int(self._listener.getsockname()[1])
        self.there_bytes = 0
        self.connections = 0
        self.cuts = 0

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._cut()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._server)
                far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
                for end in (near, far):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with self._lock:
                    self._open += [near, far]
                    self.connections += 1
                threading.Thread(target=self._carry, args=(near, far, True), daemon=True).start()
                threading.Thread(target=self._carry, args=(far, near, False), daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket, there: bool) -> None:
        with suppress(OSError):
            while piece := source.recv(_PIECE_BYTES):
                if there:
                    self._take_time(len(piece))
                target.sendall(piece)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _take_time(self, size_bytes: int) -> None:
        with self._lock:
            self.there_bytes += size_bytes
            now_s = time.monotonic()
            self._free_at_s = max(self._free_at_s, now_s)
            if self._bytes_per_s:
                self._free_at_s += size_bytes / self._bytes_per_s
            pause_s, cut = self._free_at_s - now_s, bool(self._cut_after) and self.there_bytes >= self._cut_after
        if cut:
            self._cut_after = 0
            self.cuts += 1
            self._cut()
        time.sleep(max(0.0, pause_s))

    def _cut(self) -> None:
        with self._lock:
            ends, self._open = self._open, []
        for end in ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
