"""One file by HTTP, in bounded time."""

from __future__ import annotations

import http.client
import queue
import threading
import urllib.error
import urllib.request
from collections.abc import Callable

from models.datasets.dataset import DataFile, SourceFailed

STALL_S = 15.0
CHUNK_BYTES = 1 << 16

_Events = queue.Queue[tuple[bytes, int] | Exception]


def download_file(url: str, file: DataFile, progress: Callable[[str, int, int], None]) -> bytes:
    """The bytes behind a URL, not checked.

    The socket's time-out does not cover name resolution nor a server that trickles, so a thread reads and this
    function gives up, leaving the thread behind, once 64 KiB have not come for 15 seconds.

    Raises:
        SourceFailed: no connection, an HTTP error, cut off, stalled, or longer than the file is when unpacked.
    """
    events: _Events = queue.Queue()
    stop = threading.Event()
    threading.Thread(target=_read, args=(url, events, stop), daemon=True, name="download").start()
    try:
        return _collect(file, events, progress)
    finally:
        stop.set()


def _collect(file: DataFile, events: _Events, progress: Callable[[str, int, int], None]) -> bytes:
    content = bytearray()
    while True:
        chunk, total = _next_event(file.name, events)
        if not chunk:
            break
        content += chunk
        progress(file.name, len(content), total)
        if len(content) > file.size_bytes + CHUNK_BYTES:
            raise SourceFailed(f"{file.name}: longer than the {file.size_bytes} bytes of {file.unpacked_name}")
    if total and len(content) < total:
        raise SourceFailed(f"{file.name}: cut off after {len(content)} of {total} bytes")
    return bytes(content)


def _next_event(name: str, events: _Events) -> tuple[bytes, int]:
    try:
        event = events.get(timeout=STALL_S)
    except queue.Empty:
        raise SourceFailed(f"{name}: stalled, less than {CHUNK_BYTES >> 10} KiB in {STALL_S:.0f} s") from None
    if isinstance(event, Exception):
        reason = event if isinstance(event, urllib.error.HTTPError) else getattr(event, "reason", event)
        raise SourceFailed(f"{name}: {reason}") from event
    return event


def _read(url: str, events: _Events, stop: threading.Event) -> None:
    """Puts chunks with the total size (0: not known) until an empty one, or the error that ended it."""
    try:
        with urllib.request.urlopen(url, timeout=STALL_S) as response:  # noqa: S310, a constant of the task
            total = int(response.headers.get("Content-Length") or 0)
            chunk = b"more"
            while chunk and not stop.is_set():
                chunk = response.read(CHUNK_BYTES)
                events.put((chunk, total))
    except (OSError, http.client.HTTPException, ValueError) as error:
        events.put(error)
