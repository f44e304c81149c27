"""All boards of the inventory, asked side by side whether they are up and who has them; patience is short."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import platformdirs

from device_agent.protocol import FINAL_STATES, Lease
from pipeline.cache import write_text
from pipeline.devices.agent_answers import AgentStatus
from pipeline.devices.agent_session import open_session
from pipeline.devices.agent_stream import printable
from pipeline.devices.handshakes import Handshakes
from pipeline.devices.inventory import Device
from pipeline.devices.transport import open_transport
from pipeline.errors import (
    AgentMissing,
    AuthenticationRefused,
    DeviceError,
    EdgepressError,
    HostKeyRefused,
    ProtocolMismatch,
    StorageError,
)

CONNECT_TIMEOUT_S = 3.0
ANSWER_TIMEOUT_S = 10.0
AT_ONCE = 64


@dataclass(frozen=True)
class Standing:
    """How a device was found: ``state`` in a word or two, ``lease`` who has it, ``seen_utc`` when it last answered."""

    device: Device
    state: str
    lease: str = ""
    seen_utc: str = ""


def survey(devices: Sequence[Device], folder: Path | None = None) -> list[Standing]:
    """Ask each of ``devices``, in their order, all at once; what was seen is kept in ``folder``, or else the user's."""
    kept, handshakes = folder or seen_folder(), Handshakes()
    with ThreadPoolExecutor(max_workers=AT_ONCE) as executor:
        return list(executor.map(lambda device: _standing(device, kept, handshakes), devices))


def seen_folder() -> Path:
    """Return where it is kept when devices were last seen: in the user's folder for states."""
    return platformdirs.user_state_path("edgepress") / "devices"


def note_seen(device: str, folder: Path | None = None) -> None:
    """Keep that ``device`` answers now; a disk that is full is no reason to fail."""
    path = (folder or seen_folder()) / f"{device}.json"
    with suppress(OSError, StorageError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps({"seen_utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}))


def last_seen(device: str, folder: Path | None = None) -> str:
    """Return when ``device`` last answered; nothing when it never did."""
    path = (folder or seen_folder()) / f"{device}.json"
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["seen_utc"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _standing(device: Device, folder: Path, handshakes: Handshakes) -> Standing:
    try:
        state, lease = _ask(device, handshakes)
    except EdgepressError as error:
        return Standing(device, _state(error), seen_utc=last_seen(device.name, folder))
    note_seen(device.name, folder)
    return Standing(device, state, lease, last_seen(device.name, folder))


def _ask(device: Device, handshakes: Handshakes) -> tuple[str, str]:
    timeout_s = min(device.connect_timeout_s or CONNECT_TIMEOUT_S, CONNECT_TIMEOUT_S)
    transport = open_transport(replace(device, connect_timeout_s=timeout_s), handshakes, start=False)
    try:
        session = open_session(transport.open_stream(), device.name, ANSWER_TIMEOUT_S)
        try:
            status = session.call(AgentStatus, "status", {}, ANSWER_TIMEOUT_S)
        finally:
            session.close()
    except AgentMissing as error:
        if not error.is_installed:
            raise
        # Nobody starts one of another user's when it is needed: that is the system's to do.
        return ("agent stopped" if device.as_user else "up, idle"), ""
    finally:
        transport.close()
    is_busy = any(job.state not in FINAL_STATES for job in status.jobs)
    return ("up, measuring" if is_busy else "up"), _shown(status.lease)


def _shown(lease: Lease | None) -> str:
    return printable(f"{lease.holder} since {lease.since_utc}", 120) if lease else ""


def _state(error: EdgepressError) -> str:
    """Return what is the matter, in a word or two."""
    for kind, state in (
        (AgentMissing, "agent missing"),
        (ProtocolMismatch, "agent too old or too new"),
        (HostKeyRefused, "not trusted"),
        (AuthenticationRefused, "login refused"),
    ):
        if isinstance(error, kind):
            return state
    return "down" if isinstance(error, DeviceError) else "wrong settings"
