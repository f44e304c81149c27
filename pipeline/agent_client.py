"""What the host asks of one agent: be ours, take these files, run this job, tell how it goes, hand over the result."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from device_agent.protocol import (
    NOT_LEASED,
    UNKNOWN_JOB,
    DeviceState,
    Hello,
    JobResult,
    JobSpec,
    Lease,
    job_file_path,
    to_json,
)
from pipeline.devices.agent_answers import (
    AcceptedJob,
    AgentStatus,
    Done,
    FoundJob,
    GrantedLease,
    JobState,
    checked_file,
)
from pipeline.devices.agent_session import AgentSession, Message, OnEvent, open_session
from pipeline.devices.agent_stream import printable
from pipeline.devices.follower import Follower
from pipeline.devices.pushing import Push
from pipeline.devices.transfers import Blob, Meter, TransferProgress, is_here, often
from pipeline.devices.transport import Transport
from pipeline.errors import AgentError, DeviceError, DeviceFull, DeviceInterrupted, DeviceLeased, DeviceUnreachable

__all__ = ["AgentClient", "AgentStatus", "Blob", "FoundJob", "TransferProgress"]

ANSWER_TIMEOUT_S = 60.0
PATIENCE_S = 600.0
LEASE_TTL_S = 60.0

T = TypeVar("T")


class AgentClient:
    """A client of the agent on one device; connects at the first call, and again after a cut.

    Args:
        transport: how to reach the device; closed together with the client.
        device_name: how messages name it.
        wait: sleeps between attempts to connect again, given seconds; by default until ``interrupt`` at most.
    """

    def __init__(self, transport: Transport, device_name: str, wait: Callable[[float], object] | None = None) -> None:
        self._transport = transport
        self._device = device_name
        self._stop = threading.Event()
        self._wait = wait or self._stop.wait
        self._session: AgentSession | None = None
        self._token = ""
        self._interrupted = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None and issubclass(kind, DeviceUnreachable):
            self._token = ""  # to release the lease would take another time-out; it falls free by itself
        self.close()

    @property
    def device(self) -> str:
        """How messages name the device."""
        return self._device

    @property
    def hello(self) -> Hello:
        """What the agent said when it was connected to; connects when it is not.

        Raises:
            DeviceError: if the device cannot be reached, or its agent speaks another version of the protocol.
        """
        return self._connected().hello

    def interrupt(self, reason: str) -> None:
        """Have the call under way in another thread, and every later one but ``close``, raise DeviceInterrupted.

        A job on the device goes on.
        """
        self._interrupted = reason
        self._stop.set()
        if session := self._session:
            session.interrupt()

    def close(self) -> None:
        """Release the lease, as far as the agent can be told, and close the conversation and the transport."""
        self._interrupted = ""
        self._stop.clear()
        with suppress(DeviceError):
            self.release()
        self._drop_session()
        self._transport.close()

    def status(self) -> AgentStatus:
        """Return the agent's free space, lease and jobs."""
        return self._call(AgentStatus, "status", {})

    def device_state(self) -> DeviceState:
        """Return the board as it is just now; it takes a second.

        Raises:
            AgentError: METHOD_NOT_FOUND if the agent is older than the question.
        """
        return self._call(DeviceState, "device.state", {})

    def acquire(
        self, holder: str, on_wait: Callable[[Lease | None], None] | None = None, ttl_s: float | None = None
    ) -> None:
        """Lease the device, so that nobody else measures there; files that are pushed keep the lease alive.

        Args:
            holder: who asks, as others are told.
            on_wait: called with who has the device before it is waited for; None: do not wait.
            ttl_s: after how long without a word from us it falls free; None: a minute.

        Raises:
            DeviceLeased: if another has the device and it is not waited for.
        """
        # Our own token: if the answer is lost with the connection, asking again does not find the device leased to us.
        params = {"holder": holder, "ttl_s": ttl_s or LEASE_TTL_S, "token": secrets.token_hex(16)}
        try:
            self._token = self._call(GrantedLease, "lease.acquire", params).token
        except DeviceLeased:
            if on_wait is None:
                raise
            on_wait(self.status().lease)
            waiting = {**params, "wait": True}
            self._token = self._patiently(
                Follower("", lambda event: None),
                PATIENCE_S,
                lambda: self._call_once(GrantedLease, "lease.acquire", waiting, None).token,
            )

    def release(self) -> None:
        """End the lease, if there is one; a job under it keeps the device to its end."""
        token, self._token = self._token, ""
        if token:
            _unless_lost(lambda: self._call(Done, "lease.release", {"token": token}))

    def push(self, blobs: Sequence[Blob], progress: TransferProgress) -> int:
        """Bring files to the device: only those it lacks, and of those only the rest when a part is there already.

        A cut connection is opened again, and what has arrived before is not sent twice.

        Returns:
            How many bytes were sent.

        Raises:
            DeviceFull: if there is no room; nothing is sent when that is known before.
            DeviceUnreachable: if a cut connection does not come back while the lease lasts.
            AgentError: NOT_LEASED if the lease was lost meanwhile.
        """
        follower = Follower("", lambda event: None)

        def on_bytes() -> None:
            self._check_interrupted()
            follower.note_progress()

        kept = often(progress, LEASE_TTL_S / 3, self.renew)
        push = Push(self._call, self._transport, self._device, self.hello.home, blobs, self._token, kept, on_bytes)
        self._patiently(follower, LEASE_TTL_S, push.send_rest)
        return push.sent_bytes

    def find(self, spec: JobSpec) -> FoundJob:
        """Return the job of this specification that the agent has; its state is "unknown" when there is none."""
        return self._call(FoundJob, "job.find", {"spec": to_json(spec)})

    def submit(self, spec: JobSpec) -> str:
        """Hand over a job and return its id; the same specification is the same job.

        Raises:
            AgentError: NOT_LEASED if it is not there already and the device is not leased to us.
        """
        return self._call(AcceptedJob, "job.submit", {"spec": to_json(spec), "token": self._token}).job_id

    def follow(self, job_id: str, on_event: OnEvent, patience_s: float = PATIENCE_S) -> str:
        """Call ``on_event`` with each event of a job, once and in order, until it ends; return its final state.

        A cut connection is opened again, and the events go on where they were.

        Raises:
            DeviceUnreachable: if it does not come back within ``patience_s``; the job goes on without us.
        """
        follower = Follower(job_id, on_event)
        try:
            return self._patiently(follower, patience_s, lambda: self._follow_on(follower))
        except DeviceUnreachable as error:
            raise self._given_up(job_id, patience_s, error) from error

    def result(self, job_id: str) -> JobResult:
        """Return the result of a finished job."""
        result = self._call(JobResult, "job.result", {"job_id": job_id})
        if result.job_id != job_id:
            raise DeviceError(f"the agent on {self._device} answered with another job than {job_id}")
        return result

    def fetch_files(self, result: JobResult, folder: Path, progress: TransferProgress) -> None:
        """Copy the files of a finished job into ``folder``; those that are there already are not fetched again.

        Raises:
            DeviceError: if a file is not what the result announced.
            StorageError: if this machine's disk is full.
        """
        wanted = [file for file in result.files if not is_here(checked_file(file, self._device), folder)]
        # So that nobody else begins to measure while the files are read; a lease that fell free loses nothing here.
        kept = often(progress, LEASE_TTL_S / 3, lambda: _unless_lost(self.renew))
        meter = Meter(sum(file.size_bytes for file in wanted), kept)
        meter.advance(0)
        for file in wanted:
            remote = job_file_path(self.hello.home, result.job_id, file.name)
            self._transport.get_file(remote, folder / file.name, file.size_bytes, meter.advance)
            if not is_here(file, folder):
                (folder / file.name).unlink()
                raise DeviceError(
                    f"{self._device}: {printable(remote)} is damaged: its SHA-256 is not the one announced"
                )

    def acknowledge(self, job_id: str) -> None:
        """Tell the agent that it may forget a finished job; one that it does not know was forgotten already."""
        try:
            self._call(Done, "job.acknowledge", {"job_id": job_id})
        except AgentError as error:
            # The answer may have been lost with the connection, and the request sent again.
            if error.code != UNKNOWN_JOB:
                raise

    def cancel(self, job_id: str) -> str:
        """Stop a job and return its state."""
        return self._call(JobState, "job.cancel", {"job_id": job_id}).state

    def renew(self) -> None:
        """Say that we are still there, if the device is leased to us.

        Raises:
            AgentError: NOT_LEASED if the lease was lost meanwhile.
        """
        if self._token:
            self._call(Done, "lease.renew", {"token": self._token})

    def _patiently(self, follower: Follower, patience_s: float, ask: Callable[[], T]) -> T:
        """Return what ``ask`` returns, over as many connections as it takes."""
        while True:
            try:
                self._connected()
                follower.note_connected()
                return ask()
            except DeviceUnreachable:
                self._check_interrupted()
                follower.note_cut()
                if follower.missing_s >= patience_s:
                    raise
                self._wait(follower.next_pause_s())

    def _follow_on(self, follower: Follower) -> str:
        params = {"job_id": follower.job_id, "after": follower.last_seq}
        return self._call_once(JobState, "job.follow", params, None, follower.deliver).state

    def _given_up(self, job_id: str, patience_s: float, error: DeviceUnreachable) -> DeviceUnreachable:
        return DeviceUnreachable(
            f"{error}; tried for {patience_s:g} s to connect to {self._device} again; job {job_id} goes on there: run "
            f"the same command again to pick it up"
        )

    def _call(self, answer: type[T], method: str, params: Message, timeout_s: float | None = ANSWER_TIMEOUT_S) -> T:
        """Ask, once more over a fresh connection when an old one turns out to be dead: every request allows that."""
        if self._session is not None:
            try:
                return self._call_once(answer, method, params, timeout_s)
            except DeviceUnreachable:
                self._drop_session()
        return self._call_once(answer, method, params, timeout_s)

    def _call_once(
        self, answer: type[T], method: str, params: Message, timeout_s: float | None, on_event: OnEvent | None = None
    ) -> T:
        session = self._connected()
        try:
            return session.call(answer, method, params, timeout_s, on_event)
        except (AgentError, DeviceFull):
            # An answer like another: the conversation goes on.
            raise
        except BaseException:
            self._drop_session()
            self._check_interrupted()
            raise

    def _check_interrupted(self) -> None:
        if self._interrupted:
            raise DeviceInterrupted(f"{self._device}: {self._interrupted}")

    def _connected(self) -> AgentSession:
        self._check_interrupted()
        if self._session is None:
            self._session = open_session(self._transport.open_stream(), self._device)
        return self._session

    def _drop_session(self) -> None:
        session, self._session = self._session, None
        if session:
            session.close()


def _unless_lost(request: Callable[[], object]) -> None:
    try:
        request()
    except AgentError as error:
        if error.code != NOT_LEASED:
            raise
