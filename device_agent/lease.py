"""The lease: who has the device, one holder at a time, and who waits for it.

No timer runs: whether a lease has expired is looked at when somebody asks, and a waiter sleeps until that very moment.
Durations are by the monotonic clock, so that setting the wall clock changes nothing.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from device_agent import log
from device_agent.doorbell import Doorbell, has_ended
from device_agent.errors import ConnectionLost, Refusal
from device_agent.protocol import LEASED, NOT_LEASED, Lease


@dataclass(frozen=True)
class Grant:
    """A lease as it was given; a job keeps it on disk, so that it holds again after a restart."""

    holder: str
    token: str
    ttl_s: float
    since_utc: str


class _Held:
    """The lease in force. ``uses`` counts what keeps it: unfinished jobs, and requests under way."""

    def __init__(self, grant: Grant) -> None:
        self.grant = grant
        self.uses = 0
        self.released = False
        self._deadline_s = 0.0
        self.beat()

    def beat(self) -> None:
        """Let the time to live begin anew."""
        self._deadline_s = time.monotonic() + self.grant.ttl_s

    @property
    def expires_in_s(self) -> float | None:
        """Seconds until it falls free, or None while something keeps it."""
        return None if self.uses else max(0.0, self._deadline_s - time.monotonic())

    @property
    def is_over(self) -> bool:
        """Whether nothing keeps it any more."""
        return not self.uses and (self.released or time.monotonic() >= self._deadline_s)


class _Waiter:
    """A host in the queue."""

    def __init__(self, holder: str, ttl_s: float, token: str, connection: int) -> None:
        self.holder = holder
        self.ttl_s = ttl_s
        self.token = token
        self.connection = connection
        self.grant: Grant | None = None
        self.bell = Doorbell()
        self.bell.listen_for_end(connection)


class Leases:
    """The device's lease and the queue for it; every method may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: _Held | None = None
        self._queue: deque[_Waiter] = deque()

    def acquire(self, holder: str, ttl_s: float, token: str, connection: int | None) -> str:
        """Return the token of a lease that lives ``ttl_s`` seconds from its last heartbeat on.

        Args:
            holder: who asks, as others are told.
            ttl_s: its time to live.
            token: the host's own, so that one whose answer was lost can ask again and has the lease; empty: a new one.
            connection: the socket to whose end the lease is waited for, in the order of arrival; None: not at all.

        Raises:
            Refusal: LEASED if another has the device.
            ConnectionLost: if the connection ended meanwhile.
        """
        with self._lock:
            self._settle()
            if self._held is None:
                return self._give(holder, ttl_s, token).token
            if token and self._held.grant.token == token and not self._held.released:
                self._held.beat()
                return token
            if connection is None:
                raise Refusal(LEASED, _leased_by(self._held))
            waiter = _Waiter(holder, ttl_s, token, connection)
            self._queue.append(waiter)
        return self._wait(waiter).token

    def renew(self, token: str) -> None:
        """Take a sign of life from the holder.

        Raises:
            Refusal: NOT_LEASED if ``token`` is not that of the lease in force.
        """
        with self._lock:
            self._mine(token).beat()

    def release(self, token: str) -> None:
        """End a lease: now, or with the last of its jobs.

        Raises:
            Refusal: NOT_LEASED.
        """
        with self._lock:
            self._mine(token).released = True
            self._settle()

    def keep(self, token: str) -> Grant:
        """Keep the lease from expiring until ``let_go`` has been called as often.

        Raises:
            Refusal: NOT_LEASED.
        """
        with self._lock:
            held = self._mine(token)
            held.uses += 1
            return held.grant

    def let_go(self, token: str) -> None:
        """End what ``keep`` or ``restore`` began: the time to live begins anew. Another lease's token does nothing."""
        with self._lock:
            held = self._held
            if held and held.grant.token == token:
                held.uses -= 1
                held.beat()
                self._settle()
                self._wake_first()

    @contextmanager
    def used(self, token: str) -> Iterator[None]:
        """Keep the lease while a request that carries ``token`` is answered; without a token do nothing.

        Raises:
            Refusal: NOT_LEASED.
        """
        if not token:
            yield
            return
        self.keep(token)
        try:
            yield
        finally:
            self.let_go(token)

    def restore(self, grant: Grant) -> None:
        """Give the lease back to the holder of a job that the daemon has found unfinished at its start.

        Of several leases the last is in force: an older one's job is only unfinished because a full disk kept its end
        from being written.
        """
        with self._lock:
            if self._held is None or self._held.grant.token != grant.token:
                self._held = _Held(grant)
            self._held.uses += 1

    def current_token(self) -> str:
        """Return the token of the lease in force, or an empty text."""
        with self._lock:
            self._settle()
            return self._held.grant.token if self._held else ""

    def shown(self) -> Lease | None:
        """Return who has the device, as others are told."""
        with self._lock:
            self._settle()
            held = self._held
            return Lease(held.grant.holder, held.grant.since_utc, held.expires_in_s) if held else None

    def _mine(self, token: str) -> _Held:
        self._settle()
        held = self._held
        if held is None or held.released or held.grant.token != token:
            reason = "it was never given, was released, or fell free without a heartbeat"
            raise Refusal(NOT_LEASED, f"this token holds no lease: {reason}; acquire the lease anew")
        return held

    def _give(self, holder: str, ttl_s: float, token: str) -> Grant:
        # Not the secrets module: it loads OpenSSL, 4 MB of the 20 that an idle daemon may have.
        self._held = _Held(Grant(holder, token or os.urandom(16).hex(), ttl_s, log.utc_now()))
        return self._held.grant

    def _settle(self) -> None:
        """Let a lease that is over fall free, and give it to the first in the queue that is still there."""
        if self._held and self._held.is_over:
            self._held = None
        while self._held is None and self._queue:
            waiter = self._queue.popleft()
            if not has_ended(waiter.connection):
                waiter.grant = self._give(waiter.holder, waiter.ttl_s, waiter.token)
            waiter.bell.ring()
            self._wake_first()

    def _wake_first(self) -> None:
        """Let the first in the queue look anew at when the lease expires: it alone watches the time."""
        if self._queue:
            self._queue[0].bell.ring()

    def _wait(self, waiter: _Waiter) -> Grant:
        try:
            while True:
                with self._lock:
                    self._settle()
                    if waiter.grant:
                        return waiter.grant
                    if has_ended(waiter.connection):
                        raise ConnectionLost
                    sleep_s = self._held.expires_in_s if self._held and self._queue[0] is waiter else None
                waiter.bell.sleep(sleep_s)
        finally:
            self._leave(waiter)

    def _leave(self, waiter: _Waiter) -> None:
        with self._lock:
            if waiter in self._queue:
                self._queue.remove(waiter)
                self._wake_first()
            waiter.bell.close()


def _leased_by(held: _Held) -> str:
    expires_in_s = held.expires_in_s
    free = "once its job has ended" if expires_in_s is None else f"in {expires_in_s:.0f} s unless it is renewed"
    who = f"{held.grant.holder} since {held.grant.since_utc}"
    return f"the device is leased by {who}; it falls free {free}; try again then, or use --wait"
