"""Files on the way to a board: over lines that are cut or slow, and given up from here; real sshd, real agent."""

import contextlib
import hashlib
import importlib
import random
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from agents import stop_agent
from boards import attach
from slow_line import SlowLine

from device_agent.protocol import blob_path
from pipeline.agent_client import AgentClient, Blob
from pipeline.devices.sftp import IN_FLIGHT_BYTES
from pipeline.devices.slow_link import compressed_share
from pipeline.devices.ssh import SshTransport
from pipeline.devices.ssh_config import ssh_target
from pipeline.errors import DeviceFull, DeviceInterrupted

pytestmark = pytest.mark.sshd

MB = 1_000_000
# What SSH adds to 8 MB: two handshakes, packets, the conversation with the agent.
OVERHEAD_BYTES = 200_000


@pytest.fixture
def over(board, home, agent_home):
    """A function that returns a client of the board's agent, reached over a line of this kind, and the line."""
    with contextlib.ExitStack() as stack:

        def open_line(**kind) -> tuple[AgentClient, SlowLine]:
            line = stack.enter_context(SlowLine(board.host, board.port, **kind))
            known = home / ".ssh" / "known_hosts"
            known.write_text(known.read_text() + known.read_text().replace(f":{board.port} ", f":{line.port} "))
            transport = SshTransport(ssh_target(replace(board, port=line.port)), attach(agent_home))
            return stack.enter_context(AgentClient(transport, "pi4")), line

        yield open_line


def noise(size_bytes: int) -> bytes:
    return random.Random(0).randbytes(size_bytes)


def weights(size_bytes: int) -> bytes:
    """Return bytes that compress about to a half, as those of a pruned model do."""
    return bytes(byte if byte < 128 else 0 for byte in noise(size_bytes))


def blob(folder: Path, content: bytes) -> Blob:
    sha256 = hashlib.sha256(content).hexdigest()
    (folder / sha256).write_bytes(content)
    return Blob(sha256, folder / sha256)


def arrived(client: AgentClient, sent: Blob) -> bool:
    return Path(blob_path(client.hello.home, sent.sha256)).read_bytes() == sent.path.read_bytes()


def quiet(*_: object) -> None:
    pass


def test_a_push_that_is_cut_goes_on_by_itself_and_what_has_arrived_is_not_sent_again(over, tmp_path):
    client, line = over(cut_after=4 * MB)
    whole, steps = blob(tmp_path, noise(8 * MB)), []
    client.acquire("ana@laptop, run x")
    sent = client.push([whole], lambda *step: steps.append(step))
    assert (line.cuts, line.connections) == (1, 2)
    assert arrived(client, whole)
    assert 8 * MB - IN_FLIGHT_BYTES <= sent <= 8 * MB, "what was answered before the cut is not sent twice"
    assert line.there_bytes <= 8 * MB + IN_FLIGHT_BYTES + OVERHEAD_BYTES
    assert sorted(done for done, _ in steps) == [done for done, _ in steps]
    assert steps[-1] == (sent, sent)


def test_on_a_slow_link_what_gets_smaller_is_sent_compressed_from_where_it_is(over, tmp_path):
    client, line = over(bytes_per_s=1.5 * MB)
    whole = blob(tmp_path, weights(6 * MB))
    assert client.push([whole], quiet) == 6 * MB
    assert arrived(client, whole)
    assert line.connections == 2
    share = compressed_share(whole.path, 0)
    assert 0.4 < share < 0.8
    # At most what went in the first two seconds was sent as it is.
    assert line.there_bytes < 6 * MB * share + (1 - share) * (2 * 1.5 * MB + IN_FLIGHT_BYTES) + OVERHEAD_BYTES


@pytest.mark.parametrize(
    ("make", "rate"), [(noise, 1.5 * MB), (weights, 0)], ids=["what does not get smaller", "a fast link"]
)
def test_compression_that_does_not_pay_is_not_used(over, tmp_path, make, rate):
    client, line = over(bytes_per_s=rate)
    whole = blob(tmp_path, make(3 * MB))
    assert client.push([whole], quiet) == 3 * MB
    assert (line.connections, arrived(client, whole)) == (1, True)


def test_a_push_is_interrupted_from_another_thread_and_gives_the_lease_back(over, tmp_path):
    client, line = over(bytes_per_s=MB)
    client.acquire("ana@laptop, run x")
    begun, raised = threading.Event(), []

    def push():
        try:
            client.push([blob(tmp_path, noise(8 * MB))], lambda done, total: done and begun.set())
        except DeviceInterrupted as error:
            raised.append(str(error))

    thread = threading.Thread(target=push)
    thread.start()
    assert begun.wait(60)
    client.interrupt("it was enough")
    thread.join(30)
    assert raised == ["pi4: it was enough"]
    client.close()
    other, _ = over()
    assert other.status().lease is None
    assert line.there_bytes < 8 * MB


def test_data_that_has_no_room_is_refused_with_needed_and_free_before_a_byte_is_sent(board, small_disk, tmp_path):
    with (
        contextlib.ExitStack() as stack,
        AgentClient(SshTransport(ssh_target(board), attach(small_disk / "agent")), "pi4") as client,
    ):
        stack.callback(stop_agent, small_disk / "agent")
        model, samples = blob(tmp_path, noise(1000)), blob(tmp_path, noise(2 * MB))
        steps = []
        with pytest.raises(DeviceFull) as full:
            client.push([model, samples], lambda *step: steps.append(step))
        assert str(full.value).startswith("pi4 has no room: 2001000 bytes are needed, ")
        assert f" are free in {small_disk}/agent; make room there" in str(full.value)
        assert steps == []


def test_the_benchmark_counts_connecting_as_part_of_a_push(monkeypatch):
    """What it is compared with, the whole of scp, connects as well."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3] / "benchmarks"))
    push = importlib.import_module("push")
    rounds = [push.Pushed(1.0, 2.0, 0), push.Pushed(0.5, 2.5, 0), push.Pushed(9.0, 9.0, 0)]
    assert push.median_ratio(rounds, [2.0, 2.0, 2.0]) == 1.5
