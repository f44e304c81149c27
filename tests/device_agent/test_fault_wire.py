"""Connections that are cut after any number of bytes, in either direction: the job goes on, and so does its host."""

import random
import select
import socket
import threading
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass

import pytest

from device_agent.protocol import MeasureSpec, ProtocolError, to_json

pytestmark = pytest.mark.usefixtures("untraced")

FEWEST_CUTS = 60
# The shorter ones cut hellos and events, the longer ones let a specification and a result pass now and then.
MOST_BYTES = {"to the host": (1600, 20_000), "to the agent": (300, 5000)}


@dataclass(frozen=True)
class Cut:
    direction: str
    inside_a_line: bool


class BadLine:
    """Connects to an agent through a relay that breaks down after a number of bytes drawn from a seed."""

    def __init__(self, agent, seed: int) -> None:
        self.cuts = []
        self._agent = agent
        self._chance = random.Random(seed)

    def host(self):
        end, ours = socket.socketpair()
        left = {way: self._chance.randint(1, self._chance.choice(most)) for way, most in MOST_BYTES.items()}
        threading.Thread(target=self._relay, args=(ours, self._agent.connect(), left), daemon=True).start()
        try:
            return self._agent.host_over(end)
        except BaseException:
            end.close()
            raise

    def _relay(self, ours: socket.socket, agents: socket.socket, left: dict[str, int]) -> None:
        ways = {ours: ("to the agent", agents), agents: ("to the host", ours)}
        with ours, agents, suppress(OSError):
            while True:
                for source in select.select(list(ways), [], [])[0]:
                    direction, target = ways[source]
                    chunk = source.recv(left[direction])
                    if not chunk:
                        return
                    left[direction] -= len(chunk)
                    if not left[direction]:
                        # Noted before the other side can see it.
                        self.cuts.append(Cut(direction, not chunk.endswith(b"\n")))
                    target.sendall(chunk)
                    if not left[direction]:
                        return


class PatientHost:
    """Asks again over a new connection for as long as the line is cut."""

    def __init__(self, line: BadLine) -> None:
        self._line = line
        self._host = None
        self.cut_while = Counter()

    def do(self, what: str, request):
        while True:
            try:
                self._host = self._host or self._line.host()
                return request(self._host)
            except (OSError, ProtocolError):
                self.cut_while[what] += 1
                self.close()

    def follow(self, job_id: str) -> tuple[list[dict], str]:
        events = []

        def go_on(host) -> str:
            for message in host.events(job_id, after=len(events)):
                if not isinstance(message, dict):
                    return message
                events.append(message)
            raise AssertionError("events end with the state")

        return events, self.do("following", go_on)

    def close(self) -> None:
        if self._host:
            self._host.close()
        self._host = None


def test_a_line_that_is_cut_anywhere_costs_no_job_and_each_event_comes_once(agent):
    line = BadLine(agent, seed=5)
    patient, data, rounds = PatientHost(line), agent.data(), 0
    model = agent.null_model()
    while len(line.cuts) < FEWEST_CUTS:
        rounds += 1
        measure = MeasureSpec(processes=2, warmup_s=0, timing_s=0, min_invokes=8, max_invokes=8, seed=rounds)
        spec = agent.spec(model, data=data, measure=measure)
        job_id = patient.do("submitting", lambda host, spec=spec: submit(host, spec))
        # While it runs, and again when all has happened already.
        for _ in range(4):
            assert_each_event_came_once(*patient.follow(job_id))
        result = patient.do("result", lambda host, job_id=job_id: host.finish(job_id))
        assert [measured.score.value for measured in result.measurements] == [1.0]
        patient.do("acknowledging", lambda host, job_id=job_id: host.acknowledge(job_id))
    patient.close()
    assert agent.process.poll() is None
    assert "Traceback" not in agent.log()
    assert agent.host().call("status")["jobs"] == []
    assert_cut_everywhere(line, patient)


def submit(host, spec) -> str:
    """Hand the job in under a lease that is waited for: the answer to an earlier request for one may have been lost."""
    if not host.token and host.call("job.find", spec=to_json(spec))["state"] == "unknown":
        host.lease(ttl_s=1.0, wait=True)
    return host.submit(spec)


def assert_each_event_came_once(events: list[dict], state: str) -> None:
    assert state == "done"
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    stages = Counter(event["stage"] for event in events)
    assert stages == {"start": 1, "timing": 2, "scoring": 1, "finish": 1}


def assert_cut_everywhere(line: BadLine, patient: PatientHost) -> None:
    kinds = Counter(line.cuts)
    for direction in MOST_BYTES:
        assert kinds[Cut(direction, inside_a_line=True)] >= 5
    assert patient.cut_while["following"] >= 5
    assert patient.cut_while["submitting"] >= 3
