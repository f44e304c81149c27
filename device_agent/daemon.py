"""The daemon's life: one for each home, which listens at its socket until it is told to end."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import RawIOBase
from pathlib import Path

from device_agent import log, server
from device_agent.errors import AgentError
from device_agent.home import prepare_home, socket_path
from device_agent.settings import Settings


def run(home: Path, settings: Settings, ready_fd: int | None, stand_by: bool = False) -> None:
    """Serve ``home`` until SIGTERM or SIGINT; ``ready_fd`` is closed once the socket listens.

    Raises:
        AgentError: if another daemon serves it, unless told to ``stand_by`` until that has ended.
    """
    os.umask(0o077)
    prepare_home(home)
    with _the_only_daemon(home, stand_by), _listening(socket_path(home)) as listener, _told_to_end() as ending:
        if ready_fd is not None:
            os.close(ready_fd)
        _tell_systemd()
        log.note(f"serving {home} at {socket_path(home)}")
        server.serve(home, listener, ending, settings)


@contextmanager
def _the_only_daemon(home: Path, stand_by: bool) -> Iterator[None]:
    # A lock of the kernel: unlike a file with a process id, it ends with the daemon however that ends.
    with (home / "agent.lock").open("a+b", buffering=0) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            other = f"another agent (process {_process_id(lock)}) serves {home} already"
            if not stand_by:
                raise AgentError(other) from None
            log.note(f"{other}; standing by")
            _tell_systemd()
            fcntl.flock(lock, fcntl.LOCK_EX)
        # On a full disk the daemon is needed all the same: it is the one that can make room there.
        with suppress(OSError):
            lock.truncate(0)
            lock.write(str(os.getpid()).encode())
        yield


def _process_id(lock: RawIOBase) -> str:
    return (lock.read(20) or b"").decode("ascii", errors="replace") or "unknown"


@contextmanager
def _listening(path: Path) -> Iterator[socket.socket]:
    # Left by a daemon that was killed: whoever holds the lock may take its place.
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(64)
        try:
            yield listener
        finally:
            path.unlink(missing_ok=True)


@contextmanager
def _told_to_end() -> Iterator[int]:
    """Yield a file descriptor that becomes readable with SIGTERM or SIGINT.

    A handler that raises would be late by one connection when the signal comes just before ``accept`` sleeps."""
    ending, signalled = os.pipe()
    os.set_blocking(signalled, False)
    signal.set_wakeup_fd(signalled)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    try:
        yield ending
    finally:
        signal.set_wakeup_fd(-1)


def _tell_systemd() -> None:
    """Say to systemd, if it started us, that we are ready: sd_notify(3)."""
    name = os.environ.get("NOTIFY_SOCKET", "")
    if name:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified, suppress(OSError):
            notified.sendto(b"READY=1", "\0" + name[1:] if name.startswith("@") else name)
