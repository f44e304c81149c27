"""How far a job has been followed, or files been sent, and how long the connection has been missing."""

from __future__ import annotations

import time

from device_agent.protocol import JobEvent
from pipeline.devices.agent_session import OnEvent

FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 15.0


class Follower:
    """Hands on the events of one job, each once, over as many connections as it takes."""

    def __init__(self, job_id: str, on_event: OnEvent) -> None:
        self.job_id = job_id
        self.last_seq = 0
        self._on_event = on_event
        self._cut_at_s: float | None = None
        self._earlier_s = 0.0
        self._pause_s = FIRST_PAUSE_S

    @property
    def missing_s(self) -> float:
        """Seconds without a connection since the last event, all gaps together.

        A gap alone would not do: an agent that dies whenever it is followed would be followed for ever.
        """
        return self._earlier_s + (0.0 if self._cut_at_s is None else time.monotonic() - self._cut_at_s)

    def deliver(self, event: JobEvent) -> None:
        """Hand on an event unless it was before."""
        self.note_progress()
        if event.job_id == self.job_id and event.seq > self.last_seq:
            self.last_seq = event.seq
            self._on_event(event)

    def note_progress(self) -> None:
        """Note that something came of the connection: what it was missing for before does not count any more."""
        self._earlier_s, self._pause_s = 0.0, FIRST_PAUSE_S

    def note_cut(self) -> None:
        """Note that there is no connection now."""
        if self._cut_at_s is None:
            self._cut_at_s = time.monotonic()

    def note_connected(self) -> None:
        """Note that there is a connection now."""
        self._earlier_s, self._cut_at_s = self.missing_s, None

    def next_pause_s(self) -> float:
        """Return how long to wait before the next attempt: doubled each time until an event comes."""
        pause_s, self._pause_s = self._pause_s, min(2 * self._pause_s, LONGEST_PAUSE_S)
        return pause_s
