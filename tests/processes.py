"""What runs on this machine, by its command line; and waiting for what another process does."""

import os
import signal
import time
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


def wait_for(condition, deadline_s=60):
    """Return as soon as ``condition()`` holds; fail when it does not within ``deadline_s`` seconds."""
    deadline = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def heed_ctrl_c() -> None:
    """For ``preexec_fn``: what a shell runs in the background, such as a suite under nohup, ignores SIGINT for ever."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
