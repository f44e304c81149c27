"""Files on their way to one device: what it lacks, whether there is room, and how far each has come."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from device_agent.protocol import part_path
from pipeline.devices.agent_answers import AgentStatus, Done, MissingBlobs
from pipeline.devices.agent_session import Message
from pipeline.devices.agent_stream import printable
from pipeline.devices.transfers import Blob, Meter, TransferProgress, Upload, plan_upload
from pipeline.devices.transport import Transport
from pipeline.errors import DeviceError, DeviceFull

HASHING_TIMEOUT_S = 900.0

T = TypeVar("T")


class Ask(Protocol):
    """One request to the agent; see ``AgentSession.call``."""

    def __call__(self, answer: type[T], method: str, params: Message, timeout_s: float = ...) -> T:
        """Return the answer. Raises a DeviceError."""


class Push:
    """Blobs for one device, sent over as many connections as it takes.

    Args:
        ask: asks the agent.
        transport: carries the files.
        device: how messages name it.
        home: the agent's folder there.
        blobs: what is to be there in the end.
        token: of the lease, "" without one.
        progress: told the bytes done and to do.
        on_bytes: called whenever some bytes are through; may raise to end it.
    """

    def __init__(
        self,
        ask: Ask,
        transport: Transport,
        device: str,
        home: str,
        blobs: Sequence[Blob],
        token: str,
        progress: TransferProgress,
        on_bytes: Callable[[], None],
    ) -> None:
        self._ask = ask
        self._transport = transport
        self._device = device
        self._home = home
        self._by_hash = {blob.sha256: blob for blob in blobs}
        self._token = token
        self._on_bytes = on_bytes
        self._meter = Meter(0, progress)

    @property
    def sent_bytes(self) -> int:
        """How many bytes have got through."""
        return self._meter.done_bytes

    def send_rest(self) -> None:
        """Send what the device lacks by now; after a cut again, and only what had not arrived is sent.

        Raises:
            DeviceFull: if there is no room; nothing is sent when that is known before.
        """
        uploads = self._plan()
        self._check_room(uploads)
        self._meter.expect(sum(upload.bytes_to_send for upload in uploads))
        for upload in uploads:
            self._send(upload)

    def _plan(self) -> list[Upload]:
        params = {"sha256": list(self._by_hash), "token": self._token}
        answer = self._ask(MissingBlobs, "blob.missing", params, HASHING_TIMEOUT_S)
        unasked = [entry.sha256 for entry in answer.missing if entry.sha256 not in self._by_hash]
        if unasked:
            raise DeviceError(f"the agent on {self._device} misses {unasked[0]}, which it was not asked about")
        return [plan_upload(self._by_hash[entry.sha256], entry) for entry in answer.missing]

    def _check_room(self, uploads: list[Upload]) -> None:
        if not uploads:
            return
        status = self._ask(AgentStatus, "status", {})
        need = sum(upload.bytes_to_allocate for upload in uploads)
        if need > status.free_bytes:
            raise DeviceFull(
                f"{self._device} has no room: {need} bytes are needed, {status.free_bytes} are free in "
                f'{printable(status.home)}; make room there, or set "home" in the device\'s file to another disk'
            )

    def _send(self, upload: Upload) -> None:
        blob = upload.blob

        def note(size_bytes: int) -> None:
            self._on_bytes()
            self._meter.advance(size_bytes)

        # An empty file has nothing to send, but must be there to be committed.
        if upload.bytes_to_send or not upload.part_bytes:
            self._transport.put_file(blob.path, part_path(self._home, blob.sha256), upload.offset, note)
        params = {"sha256": blob.sha256, "size_bytes": upload.size_bytes, "token": self._token}
        self._ask(Done, "blob.commit", params, HASHING_TIMEOUT_S)
