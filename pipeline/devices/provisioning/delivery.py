"""How a bundle gets to a board: while nobody measures there, only what is missing, and only when there is room."""

from __future__ import annotations

import getpass
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from device_agent.protocol import Lease
from pipeline.agent_client import AgentClient
from pipeline.devices.agent_answers import MissingBlob
from pipeline.devices.inventory import Device
from pipeline.devices.provisioning.answers import Prepared
from pipeline.devices.provisioning.bundle import Bundle, File
from pipeline.devices.provisioning.installer import Installer, installer_zip
from pipeline.devices.ssh import SshTransport, ssh_transport
from pipeline.devices.transfers import Blob, Meter, often, plan_upload
from pipeline.errors import DeviceError, DeviceFull, DeviceUnreachable, ProtocolMismatch
from pipeline.reporting.progress import BYTES, Progress

LEASE_TTL_S = 120.0
RENEW_S = 20.0
# For names and folders of a thousand files, and what a file system does not give away.
SPARE_BYTES = 16 << 20


@dataclass(frozen=True)
class Held:
    """The device while it is ours: ``words`` tell the installer so."""

    words: tuple[str, ...]
    renew: Callable[[], None]


@contextmanager
def leased(device: Device, what: str, on_wait: Callable[[Lease | None], None] | None) -> Iterator[Held]:
    """Lease ``device`` from the agent that runs there. Where there is none that can be asked, the installer looks.

    Raises:
        DeviceLeased: if another has it, and it is not to be waited for.
    """
    with AgentClient(ssh_transport(device), device.name) as client:
        try:
            yield _hold(client, device.home, what, on_wait)
        except DeviceUnreachable:
            # It may be back already, and a lease that stayed would keep the next run out.
            with suppress(DeviceError):
                client.release()
            raise


def _hold(client: AgentClient, home: str | None, what: str, on_wait: Callable[[Lease | None], None] | None) -> Held:
    try:
        serves = client.hello.home
    except (DeviceUnreachable, ProtocolMismatch):
        return Held((), lambda: None)
    holder = f"{getpass.getuser()}@{socket.gethostname()}, {what}"
    client.acquire(holder, on_wait, LEASE_TTL_S)
    return Held(("--holder", holder) if serves == home else (), client.renew)


def send_installer(transport: SshTransport, installer: Installer, agent: Sequence[File]) -> None:
    """Put the installer where the board's Python finds it."""
    installer.make_room()
    with tempfile.NamedTemporaryFile(prefix="edgepress-") as file:
        file.write(installer_zip(agent))
        file.flush()
        transport.put_file(Path(file.name), installer.path, 0, lambda size_bytes: None)


def push_bundle(
    transport: SshTransport, installer: Installer, bundle: Bundle, device: str, held: Held, progress: Progress
) -> int:
    """Bring those parts of ``bundle`` to the board that it lacks, going on where an earlier push was cut.

    Returns:
        How many bytes were sent.

    Raises:
        DeviceFull: if there is no room for them and what they unpack to; nothing is sent then.
    """
    found = installer.ask(Prepared, "prepare", *part_words(bundle))
    begun = {part.sha256: MissingBlob(part.sha256, part.part_bytes, part.part_sha256) for part in found.parts}
    lacking = {part.sha256 for part in found.parts if not part.is_here}
    sent = [sent for sent in bundle.parts if sent.part.sha256 in lacking]
    uploads = [plan_upload(Blob(one.part.sha256, one.path), begun[one.part.sha256]) for one in sent]
    unpacked_bytes = sum(one.unpacked_bytes for one in sent) + SPARE_BYTES
    _check_room(found, sum(upload.bytes_to_allocate for upload in uploads), unpacked_bytes, device)
    total_bytes = sum(upload.bytes_to_send for upload in uploads)
    pushing = progress.stage("push", total_bytes, BYTES)
    meter = Meter(total_bytes, often(pushing.update, RENEW_S, held.renew))
    for upload in uploads:
        if upload.bytes_to_send:
            transport.put_file(upload.blob.path, installer.part(upload.blob.sha256), upload.offset, meter.advance)
    pushing.finish(f"{meter.done_bytes} bytes sent")
    return meter.done_bytes


def part_words(bundle: Bundle) -> tuple[str, ...]:
    """Return the words that tell the installer of the parts."""
    return tuple(word for sent in bundle.parts for word in ("--part", sent.word))


def _check_room(found: Prepared, incoming_bytes: int, root_bytes: int, device: str) -> None:
    needs = [(incoming_bytes, found.incoming_free_bytes), (root_bytes, found.root_free_bytes)]
    if found.same_disk:
        needs = [(incoming_bytes + root_bytes, found.root_free_bytes)]
    for needed, free in needs:
        if needed > free:
            raise DeviceFull(f"{device} has no room for the agent: {needed} bytes are needed, {free} are free")
