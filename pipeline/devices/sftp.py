"""File content over SFTP, fast and whole.

paramiko errors pass through: the caller knows the connection. What is said here is that a disk is full.
"""

from __future__ import annotations

import posixpath
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import paramiko
from paramiko.sftp import CMD_EXTENDED, CMD_WRITE, int64

from pipeline.devices.transport import Progress
from pipeline.devices.whole_file import whole_file
from pipeline.errors import DeviceError, DeviceFull

# paramiko puts so much into one SSH packet; a write with its headers should fill whole ones.
_PACKET_BYTES = 32768 - 64
# Length, type, request, handle (of four bytes in OpenSSH) and offset, and the length of the data.
_HEADER_BYTES = 4 + 1 + 4 + 8 + 8 + 4
# What every SFTP server takes in one write, and what is sent to one that says it takes as much: with fewer answers to
# wait for, 100 MB over loopback took 0.74 s instead of 1.15.
CHUNK_BYTES = _PACKET_BYTES - _HEADER_BYTES
LARGE_CHUNK_BYTES = 4 * _PACKET_BYTES - _HEADER_BYTES
# From here on it is worth to ask.
_ASK_FROM_BYTES = 1 << 20
# What may be under way without an answer: as much as OpenSSH's window for a channel.
IN_FLIGHT_BYTES = 2 << 20
_READ_BYTES = 32768


def upload(
    sftp: paramiko.SFTPClient,
    title: str,
    local: Path,
    remote: str,
    offset: int,
    progress: Progress,
    enough: Callable[[int], bool] = lambda position: False,
) -> int:
    """Send ``local`` from ``offset`` on to the end of ``remote``, truncated to ``offset`` first.

    Args:
        sftp: an open channel.
        title: the device, as messages name it.
        local: the file here.
        remote: its path there.
        offset: how much of it is there already.
        progress: called with the bytes that were written there, as the far end says so.
        enough: asked as often, with the position reached; True ends the transfer there, in order.

    Returns:
        How many bytes of ``local`` are there now: all of them, unless it was ``enough``.

    Raises:
        DeviceFull: if there is no room there.
    """
    size_bytes = local.stat().st_size
    try:
        with local.open("rb") as source, sftp.open(remote, "r+b" if offset else "wb") as target:
            source.seek(offset)
            if offset:
                target.truncate(offset)
            writes = _Writes(sftp, target, offset)
            chunk_bytes = CHUNK_BYTES if size_bytes - offset < _ASK_FROM_BYTES else _chunk_bytes(sftp)
            while not enough(writes.answered) and (chunk := source.read(chunk_bytes)):
                writes.send(chunk)
                if writes.in_flight >= IN_FLIGHT_BYTES:
                    progress(writes.await_answer())
            while writes.in_flight:
                progress(writes.await_answer())
            return writes.answered
    except OSError as error:
        if error.errno is None:
            _raise_if_full(sftp, title, remote, size_bytes)
        raise


class _Writes:
    """Writes to one file that are under way.

    paramiko's own pipelined writes wait, now and then, for all answers that are outstanding, and the line idles
    meanwhile; and they count as done what has only been handed to the kernel here.
    """

    def __init__(self, sftp: paramiko.SFTPClient, target: paramiko.SFTPFile, offset: int) -> None:
        self._sftp = cast("Any", sftp)
        self._handle = cast("Any", target).handle
        self._sent = offset
        self._outstanding: deque[tuple[int, int]] = deque()
        self.answered = offset

    @property
    def in_flight(self) -> int:
        """How many bytes are under way."""
        return self._sent - self.answered

    def send(self, chunk: bytes) -> None:
        """Write ``chunk`` behind what was sent before, without waiting for the answer."""
        # type(None) is paramiko's own mark for an answer that no file object waits for.
        request = self._sftp._async_request(type(None), CMD_WRITE, self._handle, int64(self._sent), chunk)
        self._outstanding.append((request, len(chunk)))
        self._sent += len(chunk)

    def await_answer(self) -> int:
        """Wait until the oldest write is answered, and return its size. Raises OSError if it failed."""
        request, size_bytes = self._outstanding.popleft()
        self._sftp._read_response(request)
        self.answered += size_bytes
        return size_bytes


def download(
    sftp: paramiko.SFTPClient, title: str, remote: str, local: Path, size_bytes: int, progress: Progress
) -> None:
    """Fetch ``remote``, which has ``size_bytes``, to ``local``: whole or not at all."""
    with sftp.open(remote, "rb") as source:
        found = source.stat().st_size
        if found != size_bytes:
            raise DeviceError(f"{title}: {remote} has {found} bytes; the agent announced {size_bytes}")
        if size_bytes:
            _ask_ahead(source, size_bytes)
        with whole_file(local) as write:
            received = 0
            while chunk := source.read(_READ_BYTES):
                write(chunk)
                received += len(chunk)
                progress(len(chunk))
            if received != size_bytes:
                source.stat()  # raises when the connection was cut, which paramiko may tell as the end of the file
                raise DeviceError(f"{title}: {remote} changed while it was read: {received} of {size_bytes} bytes came")


def _ask_ahead(source: paramiko.SFTPFile, size_bytes: int) -> None:
    """Request the whole file at once, in a thread of paramiko's.

    That thread would print a traceback when the connection is cut; whoever reads the file meets the same error.
    """
    ask = cast("Any", source)._prefetch_thread

    def ask_quietly(*arguments: Any) -> None:
        with suppress(paramiko.SSHException, EOFError, OSError):
            ask(*arguments)

    cast("Any", source)._prefetch_thread = ask_quietly
    source.prefetch(size_bytes)


def _raise_if_full(sftp: paramiko.SFTPClient, title: str, remote: str, size_bytes: int) -> None:
    """SFTP has one word, "Failure", for every fault: look whether it means a full disk."""
    free = _free_bytes(sftp, posixpath.dirname(remote))
    try:
        missing = size_bytes - (sftp.stat(remote).st_size or 0)
    except OSError:
        missing = size_bytes
    if free is not None and free < missing:
        raise DeviceFull(f"{title} has no room for {posixpath.basename(remote)}: {missing} bytes needed, {free} free")


def _chunk_bytes(sftp: paramiko.SFTPClient) -> int:
    """Return how much may be sent in one write: "limits@openssh.com" is an extension of OpenSSH 8.5 and later."""
    try:
        # Four fields of 64 bits each: largest packet, read and write, and how many handles (OpenSSH's PROTOCOL, 4.9).
        _, answer = cast("Any", sftp)._request(CMD_EXTENDED, "limits@openssh.com")
    except (OSError, EOFError):
        return CHUNK_BYTES
    _, _, largest_write = (answer.get_int64() for _ in range(3))
    return LARGE_CHUNK_BYTES if largest_write >= LARGE_CHUNK_BYTES else CHUNK_BYTES


def _free_bytes(sftp: paramiko.SFTPClient, folder: str) -> int | None:
    try:
        # An extension of OpenSSH's that paramiko has no call for; the fields are f_bsize, f_frsize, f_blocks, f_bfree,
        # f_bavail and more, 64 bits each (OpenSSH's PROTOCOL, section 4.4).
        _, answer = cast("Any", sftp)._request(CMD_EXTENDED, "statvfs@openssh.com", folder)
    except (OSError, EOFError, paramiko.SSHException):
        return None
    _, fragment_bytes, _, _, available = (answer.get_int64() for _ in range(5))
    return int(fragment_bytes * available)
