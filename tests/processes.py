"""What runs on this machine, by its command line; and waiting for what another process does."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def processes_with(words: str) -> list[int]:
    """Return the living processes whose command line has ``words`` in it, but for this one."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if words.encode() in path.read_bytes() and int(path.parent.name) != os.getpid():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def processes_holding(folder: Path) -> list[int]:
    """Return the living processes that have a file below ``folder`` open, as a step has its log, but for this one."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        # Any of them may end meanwhile.
        with suppress(OSError):
            for path in (process / "fd").iterdir():
                with suppress(OSError):
                    if path.readlink().is_relative_to(folder):
                        found.add(int(process.name))
    return sorted(found - {os.getpid()})


def steps_in(folder: Path) -> list[int]:
    """Return the processes of steps, not the server that forks them, that have a file below ``folder`` open."""
    return [pid for pid in processes_holding(folder) if _name(pid) == "edgepress-step"]


def _name(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Stop a process meanwhile; a thread of it may still run for a moment once the signal was sent."""
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_for(lambda: all(_is_stopped(thread) for thread in Path(f"/proc/{pid}/task").iterdir()))
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def _is_stopped(thread: Path) -> bool:
    return (thread / "stat").read_text().rpartition(")")[2].split()[0] == "T"


def wait_for(condition, deadline_s=60):
    """Return as soon as ``condition()`` holds; fail when it does not within ``deadline_s`` seconds."""
    deadline = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def heed_ctrl_c() -> None:
    """For ``preexec_fn``: what a shell runs in the background, such as a suite under nohup, ignores SIGINT for ever."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
