"""Several hosts and one real agent: who has it, who waits, and what a long push does to a lease."""

import contextlib
import hashlib
import threading
from pathlib import Path

import pytest
from agents import write_agent, write_peer

from device_agent.protocol import LEASED, NOT_LEASED
from pipeline.agent_client import AgentClient, Blob
from pipeline.devices.inventory import Device
from pipeline.devices.transport import open_transport
from pipeline.errors import AgentError, DeviceLeased, DeviceUnreachable


@pytest.fixture
def connect(agent_home):
    """A function that returns a client of a device; all are closed before their agent is ended."""
    with contextlib.ExitStack() as stack:

        def make(device: Device) -> AgentClient:
            client = AgentClient(open_transport(device), device.name, wait=lambda seconds: None)
            return stack.enter_context(client)

        yield make


@pytest.fixture
def bench(tmp_path, agent_home):
    """This machine as a device with an agent of its own."""
    return Device("bench", "local", agent=str(write_agent(tmp_path)), home=str(agent_home))


@pytest.fixture
def client(connect, bench):
    return connect(bench)


@pytest.fixture
def misbehaving(connect, tmp_path):
    """A function that returns a client of a peer that answers as told."""
    return lambda **lines: connect(Device("peer", "local", agent=str(write_peer(tmp_path, **lines))))


def blob(folder: Path, content: bytes) -> Blob:
    sha256 = hashlib.sha256(content).hexdigest()
    (folder / sha256).write_bytes(content)
    return Blob(sha256, folder / sha256)


def quiet(*_: object) -> None:
    pass


def test_a_device_that_another_has_is_refused_with_who_it_is(client, connect, bench):
    client.acquire("ana@laptop, run x")
    with pytest.raises(
        DeviceLeased, match=r"^bench: the device is leased by ana@laptop, run x since .* or use --wait$"
    ):
        connect(bench).acquire("ben@desk, run y")


def test_a_device_is_waited_for_and_free_when_its_holder_closes(client, connect, bench):
    client.acquire("ana@laptop, run x")
    told, second = [], connect(bench)

    def on_wait(lease):
        told.append(lease.holder)
        client.close()

    second.acquire("ben@desk, run y", on_wait)
    assert told == ["ana@laptop, run x"]
    assert second.status().lease.holder == "ben@desk, run y"


def test_a_second_host_gets_its_answer_only_when_the_first_has_ended(client, connect, bench):
    client.acquire("ana@laptop, run x")
    second, waiting, has_it = connect(bench), threading.Event(), threading.Event()

    def wait():
        second.acquire("ben@desk, run y", lambda lease: waiting.set())
        has_it.set()

    thread = threading.Thread(target=wait)
    thread.start()
    assert waiting.wait(30)
    assert not has_it.wait(0.5)
    client.release()
    assert has_it.wait(30)
    thread.join(30)


def test_the_lease_outlives_a_push_that_takes_longer(client, connect, bench, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.agent_client.LEASE_TTL_S", 2.5)
    other, blobs = connect(bench), [blob(tmp_path, letter.encode() * (3 << 20)) for letter in "abc"]
    client.acquire("ana@laptop, run x")

    def slowly(done_bytes, total_bytes):
        # Each of the three files comes in three steps: 2.7 s in all, each step shorter than the time to live.
        threading.Event().wait(0.3)
        assert other.status().lease.holder == "ana@laptop, run x"

    assert client.push(blobs, slowly) == 9 << 20


def test_a_lease_that_was_lost_ends_the_push(client, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.agent_client.LEASE_TTL_S", 1.0)
    client.acquire("ana@laptop, run x")
    # Longer than the time to live without a sign of life, as of a laptop that slept.
    threading.Event().wait(1.1)
    with pytest.raises(AgentError, match="this token holds no lease") as caught:
        client.push([blob(tmp_path, b"content")], quiet)
    assert caught.value.code == NOT_LEASED


LEASED_ANSWER = f'{{"id":$ID,"error":{{"code":{LEASED},"message":"leased"}}}}\n'
STATUS = {"home": "/", "free_bytes": 1, "jobs": [], "lease": {"holder": "ana", "since_utc": "now"}}


def test_a_connection_that_is_cut_while_waiting_is_opened_again(misbehaving):
    # By connection: refused and then, asked to wait, cut; cut once more; free at last.
    first = LEASED_ANSWER
    peer = misbehaving(status=(STATUS, None), lease_acquire=(first, None, {"token": "ours"}), lease_release={})
    told = []

    def on_wait(lease):
        told.append(lease.holder)
        peer._drop_session()

    peer.acquire("ben", on_wait)
    assert told == ["ana"]


def test_a_device_that_is_away_while_it_is_waited_for_is_given_up_at_last(misbehaving, monkeypatch):
    monkeypatch.setattr("pipeline.agent_client.PATIENCE_S", 0.2)
    peer = misbehaving(status=STATUS, lease_acquire=(LEASED_ANSWER, None))
    with pytest.raises(DeviceUnreachable, match="the agent on peer has gone"):
        peer.acquire("ben", lambda lease: peer._drop_session())
