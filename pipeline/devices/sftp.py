"""File content over SFTP, fast and whole.

paramiko errors pass through: the caller knows the connection. What is said here is that a disk is full.
"""

from __future__ import annotations

import posixpath
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import paramiko
from paramiko.sftp import CMD_EXTENDED

from pipeline.devices.transport import Progress
from pipeline.devices.whole_file import whole_file
from pipeline.errors import DeviceError, DeviceFull

# The largest write that SFTP servers must take; paramiko would cut larger ones.
CHUNK_BYTES = 32768


def upload(sftp: paramiko.SFTPClient, title: str, local: Path, remote: str, offset: int, progress: Progress) -> None:
    """Send ``local`` from ``offset`` on to the end of ``remote``, truncated to ``offset`` first.

    Raises:
        DeviceFull: if there is no room there.
    """
    size_bytes = local.stat().st_size
    try:
        with local.open("rb") as source, sftp.open(remote, "r+b" if offset else "wb") as target:
            source.seek(offset)
            target.truncate(offset)
            target.seek(offset)
            target.set_pipelined(True)
            sent = offset
            while chunk := source.read(CHUNK_BYTES):
                sent += len(chunk)
                # paramiko forgets the answers that are outstanding at close(), errors among them, but waits for
                # all of them in a write that is not pipelined: so the last one is not.
                target.set_pipelined(sent < size_bytes)
                target.write(chunk)
                progress(len(chunk))
    except OSError as error:
        if error.errno is None:
            _raise_if_full(sftp, title, remote, size_bytes)
        raise


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
            while chunk := source.read(CHUNK_BYTES):
                write(chunk)
                received += len(chunk)
                progress(len(chunk))
            if received != size_bytes:
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


def _free_bytes(sftp: paramiko.SFTPClient, folder: str) -> int | None:
    try:
        # An extension of OpenSSH's that paramiko has no call for; the fields are f_bsize, f_frsize, f_blocks, f_bfree,
        # f_bavail and more, 64 bits each (OpenSSH's PROTOCOL, section 4.4).
        _, answer = cast("Any", sftp)._request(CMD_EXTENDED, "statvfs@openssh.com", folder)
    except (OSError, EOFError, paramiko.SSHException):
        return None
    _, fragment_bytes, _, _, available = (answer.get_int64() for _ in range(5))
    return int(fragment_bytes * available)
