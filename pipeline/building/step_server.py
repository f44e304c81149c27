"""Forks a process for each TensorFlow step: ``python -m pipeline.building.step_server CONTROL_FD``.

Importing TensorFlow takes longer than most steps do. This process imports it once, and does nothing else with it: no
thread of TensorFlow's runs yet, so that what is forked is as good as new. A step's process takes its request, its
channel and its log from ``CONTROL_FD``; how it ended is the last line of the channel.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import socket
import sys
import traceback
from pathlib import Path

_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15


def main() -> None:
    """Serve until the other end of the control socket is closed: by the run's end, or by its death."""
    control = socket.socket(fileno=int(sys.argv[1]))
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tf_keras  # noqa: F401  for all that are forked

    from pipeline.building import step_worker  # noqa: F401

    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(wake)
    children: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([control.fileno(), woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
            _tell_ends(children)
        if control.fileno() in ready and not _fork(control, children):
            return


def _fork(control: socket.socket, children: dict[int, int]) -> bool:
    """Take one request and fork its process; return False when there are no more to come."""
    message, descriptors, _, _ = socket.recv_fds(control, 1 << 16, 2)
    if not message:
        return False
    channel, log = descriptors
    server = os.getpid()
    child = os.fork()
    if not child:
        control.close()
        for other in children.values():
            os.close(other)
        _become_step(Path(os.fsdecode(message)), channel, log, server)
    os.close(log)
    children[child] = channel
    return True


def _become_step(request: Path, channel: int, log: int, server: int) -> None:
    """Do the step, as a process of its own; never returns."""
    code = 1
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        _die_with(server)
        os.dup2(log, 1)
        os.dup2(log, 2)
        from pipeline.building.step_worker import do_step

        with os.fdopen(channel, "w", buffering=1) as stream:
            stream.write(json.dumps({"pid": os.getpid()}) + "\n")
            do_step(request, stream)
        code = 0
    except BaseException:  # noqa: BLE001  it goes to the step's log; the parent tells its end
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        # Not the server's way out: nothing of what it holds is this process's to end.
        os._exit(code)


def _die_with(server: int) -> None:
    """A server that is gone, as its run was killed, takes its steps along; on Linux only."""
    if sys.platform == "linux":
        library = ctypes.CDLL(None)
        library.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        library.prctl(_PR_SET_NAME, b"edgepress-step")
        if os.getppid() != server:
            sys.exit("the run is gone")


def _tell_ends(children: dict[int, int]) -> None:
    """Write to the channel of each child that has ended how it did, and close it."""
    while children:
        child, status = os.waitpid(-1, os.WNOHANG)
        if not child:
            return
        channel = children.pop(child)
        try:
            os.write(channel, json.dumps({"returncode": os.waitstatus_to_exitcode(status)}).encode() + b"\n")
        except BrokenPipeError:
            pass  # the run has given this step up
        finally:
            os.close(channel)


if __name__ == "__main__":
    main()
