"""When compression on the wire pays: the link is slow, the file gets smaller, and that saves more time than it costs.

SSH compresses with zlib, level 6, each packet for itself (paramiko's ``compress.py``).
"""

from __future__ import annotations

import time
import zlib
from pathlib import Path

SLOW_BYTES_PER_S = 2e6
# So long a measurement that one burst, or one lost packet, does not decide.
MEASURED_FOR_S = 1.0
# A second connection must save several times what it costs.
WORTH = 3.0
_PIECES, _PIECE_BYTES = 8, 31 << 10


class Pace:
    """How fast files get through over one connection, by the answers of the far end.

    Args:
        connect_s: how long it took to connect: what a second connection costs.
    """

    def __init__(self, connect_s: float) -> None:
        self._connect_s = connect_s
        self._bytes = 0
        self._elapsed_s = 0.0
        self._since_s: float | None = None
        self._looked_at_s = 0.0

    @property
    def bytes_per_s(self) -> float | None:
        """The rate so far; None before it has been measured for long enough."""
        return self._bytes / self._elapsed_s if self._elapsed_s >= MEASURED_FOR_S else None

    def begin(self) -> None:
        """Note that a transfer begins; what lies between two of them does not count."""
        self._since_s = time.monotonic()

    def note(self, size_bytes: int) -> None:
        """Note that so many more bytes are through."""
        now_s = time.monotonic()
        self._elapsed_s += now_s - (self._since_s or now_s)
        self._bytes += size_bytes
        self._since_s = now_s

    def compression_pays(self, local: Path, position: int) -> bool:
        """Tell whether to send ``local`` from ``position`` on over a compressing connection; looks once a second."""
        rate = self.bytes_per_s
        if rate is None or rate >= SLOW_BYTES_PER_S or self._elapsed_s < self._looked_at_s + MEASURED_FOR_S:
            return False
        self._looked_at_s = self._elapsed_s
        left = local.stat().st_size - position
        if left / rate < WORTH * self._connect_s:
            return False
        saved_s = left * (1 - compressed_share(local, position)) / rate
        return saved_s > WORTH * self._connect_s


def compressed_share(local: Path, position: int) -> float:
    """Return the share that compression leaves of ``local`` from ``position`` on, by a few pieces of it; at most 1."""
    size_bytes = local.stat().st_size
    step = max((size_bytes - position) // _PIECES, _PIECE_BYTES)
    whole = packed = 0
    with local.open("rb") as file:
        for start in range(position, size_bytes, step):
            file.seek(start)
            piece = file.read(_PIECE_BYTES)
            whole += len(piece)
            packed += len(zlib.compress(piece))
    return min(1.0, packed / whole) if whole else 1.0
