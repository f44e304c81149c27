"""The agent that runs while another one is installed: whether it is in use, and its end."""

from __future__ import annotations

import fcntl
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from device_agent.errors import AgentError
from device_agent.protocol import FINAL_STATES, MAX_MESSAGE_BYTES, ProtocolError, decode, encode
from device_agent.reaching import connect

_PATIENCE_S = 20.0
_ANSWER_S = 60.0


def use_of(home: Path, holder: str = "") -> str | None:
    """Return what the agent of ``home``, of whatever version, is doing for others than ``holder``; None for nothing.

    Raises:
        AgentError: if it does not answer in a way that can be understood.
    """
    connected = connect(home)
    if connected is None:
        return None
    with connected, connected.makefile("rb") as stream:
        connected.settimeout(_ANSWER_S)
        try:
            stream.readline(MAX_MESSAGE_BYTES)
            connected.sendall(encode({"jsonrpc": "2.0", "id": 1, "method": "status", "params": {}}))
            status = decode(stream.readline(MAX_MESSAGE_BYTES)).get("result")
        except (OSError, ProtocolError) as error:
            raise AgentError(f"the agent of {home} does not say what it is doing: {error}") from error
    if not isinstance(status, dict):
        raise AgentError(f"the agent of {home} does not say what it is doing")
    return _use(status, holder)


def _use(status: dict[str, object], holder: str) -> str | None:
    lease, jobs = status.get("lease"), status.get("jobs")
    for job in jobs if isinstance(jobs, list) else ():
        if job.get("state") not in FINAL_STATES:
            return f"job {job.get('job_id')} is {job.get('state')}"
    # A lease of ours may have run out meanwhile: then it is somebody else's, or nobody's.
    if isinstance(lease, dict) and lease.get("holder") != holder:
        return f"{lease.get('holder')} has leased it since {lease.get('since_utc')}"
    return None


def end_daemon(home: Path) -> bool:
    """End the agent that serves ``home``, if one does, and wait until it has; say whether there was one.

    Jobs that it has not finished are on its disk; the next agent takes them up.

    Raises:
        AgentError: if it cannot be told which process it is, or that does not end.
    """
    path = home / "agent.lock"
    if not path.is_file() or not _is_held(path):
        return False
    process = _process(path)
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.kill(process, number)
        if _falls_free(path):
            return True
    raise AgentError(f"process {process}, the agent of {home}, does not end")


def _is_held(path: Path) -> bool:
    with path.open("rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _falls_free(path: Path) -> bool:
    deadline = time.monotonic() + _PATIENCE_S
    while _is_held(path):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _process(path: Path) -> int:
    text = path.read_text(errors="replace")
    process = int(text) if text.isascii() and text.isdecimal() else 0
    try:
        words = Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        words = b""
    if process < 2 or (b"device_agent" not in words and b"edgepress-agent" not in words):
        raise AgentError(f"{path} says {text[:20]!r}, which is no agent; end the agent that serves {path.parent}")
    return process
