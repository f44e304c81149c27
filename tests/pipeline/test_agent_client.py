"""The client against the real agent, on this machine and through a real sshd; and against peers that misbehave."""

import contextlib
import hashlib
import io
import json
import os
import select
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from agents import CALM, hello_line, stop_agent, write_agent, write_peer
from ssh_server import SSHD, SshServer, make_key

from device_agent.protocol import (
    NOT_LEASED,
    UNKNOWN_JOB,
    DataSpec,
    JobSpec,
    LimitSpec,
    MeasureSpec,
    ModelSpec,
    blob_path,
    job_file_path,
    part_path,
)
from pipeline.agent_client import AgentClient, Blob
from pipeline.cache import Cache
from pipeline.devices.inventory import Device
from pipeline.devices.transport import open_transport
from pipeline.errors import AgentError, DeviceError, DeviceFull, DeviceUnreachable, ProtocolMismatch
from pipeline.measuring import Placement, measure
from pipeline.reporting.progress import NoProgress
from pipeline.results.record import Artifact
from pipeline.samples import Samples

QUICK = MeasureSpec(processes=2, warmup_s=0.0, timing_s=0.0, min_invokes=8, max_invokes=8)
JOB_ID = "0123456789abcdef"
RESULT = {
    "job_id": JOB_ID, "state": "done", "started_utc": "", "finished_utc": "", "measurements": [], "failures": [],
    "device": {"machine": "x", "cores": 1, "kernel": "6", "python": "3", "model": None, "ram_bytes": None, "os": None},
    "files": [],
}  # fmt: skip


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """An empty HOME."""
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "SSH_AUTH_SOCK", "EDGEPRESS_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "home"
    (folder / ".ssh").mkdir(parents=True, mode=0o700)
    monkeypatch.setenv("HOME", str(folder))
    return folder


@pytest.fixture
def connect(tmp_path):
    """A function that returns a client; agents that it starts are stopped at the end."""
    with contextlib.ExitStack() as stack:

        def make(device: Device) -> AgentClient:
            if device.home:
                stack.callback(stop_agent, Path(device.home))
            client = AgentClient(open_transport(device), device.name, wait=lambda seconds: None)
            return stack.enter_context(client)

        yield make


@pytest.fixture
def bench(tmp_path):
    """This machine as a device with an agent of its own."""
    return Device("bench", "local", agent=str(write_agent(tmp_path)), home=str(tmp_path / "agent-home"))


@pytest.fixture
def client(connect, bench):
    return connect(bench)


@pytest.fixture
def misbehaving(connect, tmp_path):
    """A function that returns a client of a peer that answers as told."""
    return lambda **lines: connect(Device("peer", "local", agent=str(write_peer(tmp_path, **lines))))


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    return make_key(folder / "host"), make_key(folder / "user")


@pytest.fixture
def sshd(tmp_path, keys, home):
    """A server that the user knows."""
    with SshServer(tmp_path / "sshd", [keys[0]], keys[1]) as server:
        (home / ".ssh" / "known_hosts").write_text(server.known_hosts_line)
        yield server


@pytest.fixture
def board(sshd, bench):
    """The agent on this machine, reached by SSH."""
    return replace(
        bench,
        name="board",
        transport="ssh",
        host=sshd.host,
        port=sshd.port,
        user=sshd.user,
        identity_file=sshd.user_key,
    )


needs_sshd = pytest.mark.skipif(SSHD is None, reason="no sshd on this machine: install openssh-server")


@dataclass(frozen=True)
class Job:
    spec: JobSpec
    blobs: list[Blob]


def blob(folder: Path, content: bytes) -> Blob:
    sha256 = hashlib.sha256(content).hexdigest()
    path = folder / f"content-{sha256[:8]}"
    path.write_bytes(content)
    return Blob(sha256, path)


def null_job(folder: Path, **description) -> Job:
    arrays = []
    for array in (np.eye(4, dtype=np.float32), np.arange(4)):
        np.save(content := io.BytesIO(), array)
        arrays.append(blob(folder, content.getvalue()))
    model = blob(folder, json.dumps({"input_shape": [1, 4], **description}).encode())
    data = DataSpec(arrays[0].sha256, arrays[1].sha256, 4)
    models = (ModelSpec("model", model.sha256, "null"),)
    return Job(JobSpec("a test", models, data, "top1", QUICK, LimitSpec(wall_s=60), CALM), [model, *arrays])


def quiet(*_: object) -> None:
    pass


def submit(client: AgentClient, job: Job) -> str:
    client.acquire("ana@laptop, run a test")
    client.push(job.blobs, quiet)
    return client.submit(job.spec)


def finish(client: AgentClient, job: Job):
    job_id = submit(client, job)
    assert client.follow(job_id, quiet) == "done"
    return client.result(job_id)


def test_the_hello_is_what_the_agent_says_of_itself(client, bench):
    assert client.hello.home == bench.home
    assert [(r.name, r.version) for r in client.hello.runtimes if r.version] == [("null", "1")]
    assert client.status().jobs == ()


@pytest.mark.parametrize("spoken", [1, 3, "2", None, [1] * 1000])
def test_another_protocol_version_is_refused_with_what_mends_it(misbehaving, spoken):
    with pytest.raises(ProtocolMismatch) as caught:
        misbehaving(hello=hello_line(protocol=spoken)).status()
    shown = "[1, 1, 1, 1, 1, 1..." if isinstance(spoken, list) else json.dumps(spoken)
    remedy = 'run "edgepress device provision peer"'
    assert str(caught.value) == f"agent on peer speaks protocol {shown}, this host needs 2; {remedy}"


def test_push_sends_only_what_is_missing(client, tmp_path):
    old, new, empty = blob(tmp_path, b"old" * 1000), blob(tmp_path, b"new" * 500_000), blob(tmp_path, b"")
    steps = []
    assert client.push([old], quiet) == 3000
    assert client.push([old, new, new, empty], lambda *step: steps.append(step)) == 1_500_000
    assert (steps[0], steps[-1]) == ((0, 1_500_000), (1_500_000, 1_500_000))
    assert sorted(steps) == steps
    for sent in (old, new, empty):
        assert Path(blob_path(client.hello.home, sent.sha256)).read_bytes() == sent.path.read_bytes()


def test_a_second_push_sends_nothing(client, tmp_path):
    blobs, steps = [blob(tmp_path, b"a" * 1000), blob(tmp_path, b"b" * 1000)], []
    client.push(blobs, quiet)
    assert client.push(blobs, lambda *step: steps.append(step)) == 0
    assert steps == [(0, 0)]


@pytest.mark.parametrize(
    ("part", "sent_bytes"),
    [
        (b"0123456789" * 600, 4000),
        (b"0123456789" * 1000, 0),
        (b"damaged", 10_000),
        (b"0123456789" * 1001, 10_000),
        (b"", 10_000),
    ],
    ids=["its beginning", "all of it", "something else", "more than all", "nothing"],
)
def test_a_part_is_gone_on_with_only_if_it_is_the_beginning(client, tmp_path, part, sent_bytes):
    whole = blob(tmp_path, b"0123456789" * 1000)
    Path(part_path(client.hello.home, whole.sha256)).write_bytes(part)
    assert client.push([whole], quiet) == sent_bytes
    assert Path(blob_path(client.hello.home, whole.sha256)).read_bytes() == whole.path.read_bytes()


def test_what_has_no_room_is_refused_before_anything_is_sent(small_disk, connect, bench, tmp_path):
    client = connect(replace(bench, home=str(small_disk / "home")))
    fits, too_large = blob(tmp_path, b"a" * 1000), blob(tmp_path, bytes(2_000_000))
    with pytest.raises(DeviceFull) as caught:
        client.push([fits, too_large], quiet)
    said = str(caught.value)
    assert said.startswith("bench has no room: 2001000 bytes are needed, ")
    assert said.endswith(f' are free in {small_disk}/home; make room there, or set "home" in the device\'s file to '
                         "another disk")  # fmt: skip
    assert not list((small_disk / "home" / "blobs").iterdir())
    assert client.push([fits], quiet) == 1000


def test_a_whole_job_is_submitted_followed_fetched_and_acknowledged(client, tmp_path):
    job, events, steps = null_job(tmp_path), [], []
    job_id = submit(client, job)
    assert client.follow(job_id, events.append) == "done"
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert (events[0].stage, events[-1].stage) == ("start", "finish")
    result = client.result(job_id)
    (measured,) = result.measurements
    assert (measured.score.value, len(measured.blocks)) == (1.0, 2)
    folder = tmp_path / "fetched"
    folder.mkdir()
    client.fetch_files(result, folder, lambda *step: steps.append(step))
    total = sum(file.size_bytes for file in result.files)
    assert (steps[0], steps[-1]) == ((0, total), (total, total))
    assert sorted(path.name for path in folder.iterdir()) == sorted(file.name for file in result.files)
    assert np.load(folder / measured.score.file_name).tolist() == [1, 1, 1, 1]
    steps.clear()
    client.fetch_files(result, folder, lambda *step: steps.append(step))
    assert steps == [(0, 0)]
    client.acknowledge(job_id)
    assert client.status().jobs == ()


def test_the_same_specification_is_the_same_job(client, connect, bench, tmp_path):
    job = null_job(tmp_path)
    result = finish(client, job)
    again = connect(bench)
    assert again.submit(job.spec) == result.job_id
    assert again.result(result.job_id) == result
    assert client.submit(replace(job.spec, name="another")) != result.job_id


def test_a_job_without_a_lease_is_refused(client, tmp_path):
    job = null_job(tmp_path)
    client.push(job.blobs, quiet)
    with pytest.raises(AgentError, match="this token holds no lease") as caught:
        client.submit(job.spec)
    assert caught.value.code == NOT_LEASED


def test_a_job_is_found_without_a_lease(client, connect, bench, tmp_path):
    job = null_job(tmp_path)
    assert client.find(job.spec).state == "unknown"
    result = finish(client, job)
    found = connect(bench).find(job.spec)
    assert (found.job_id, found.state) == (result.job_id, "done")


def test_a_job_that_is_cancelled_ends_as_cancelled(client, connect, bench, tmp_path):
    job_id, other = submit(client, null_job(tmp_path, fault="hang")), connect(bench)
    assert client.follow(job_id, lambda event: other.cancel(job_id)) == "cancelled"
    assert client.result(job_id).measurements == ()


def test_an_answer_that_is_an_error_leaves_the_conversation_as_it_was(client):
    session = client.hello
    with pytest.raises(AgentError, match=f"^bench: no job {JOB_ID} here; submit it") as caught:
        client.result(JOB_ID)
    assert caught.value.code == UNKNOWN_JOB
    client.status()
    assert client.hello is session


def test_a_request_too_long_for_the_protocol_is_refused_here(client):
    with pytest.raises(DeviceError, match=r"blob.missing cannot be asked of bench: message has .* at most 1048576"):
        client.push([Blob(f"{number:064x}", Path("/dev/null")) for number in range(20_000)], quiet)


def test_an_agent_that_died_between_two_requests_is_started_again(client, bench):
    client.status()
    pid = int((Path(bench.home) / "agent.lock").read_text())
    gone = os.pidfd_open(pid)
    stop_agent(Path(bench.home))
    assert select.select([gone], [], [], 30)[0]
    os.close(gone)
    assert client.status().jobs == ()
    assert int((Path(bench.home) / "agent.lock").read_text()) != pid


@pytest.mark.sshd
@needs_sshd
def test_a_job_whose_connection_is_cut_is_followed_on_with_each_event_once(connect, board, sshd, tmp_path):
    client, job, events, cuts = connect(board), null_job(tmp_path, sleep_us=100_000), [], []
    job_id = submit(client, job)

    def cut_twice(event):
        events.append(event)
        # Of events that came together the later ones are told after the cut.
        if event.stage in ("start", "timing") and len(cuts) < 2 and (cut := sshd.cut_connections()):
            cuts.append(cut)

    assert client.follow(job_id, cut_twice) == "done"
    assert len(cuts) == 2
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert events[-1].stage == "finish"
    sshd.cut_connections()
    result = client.result(job_id)
    folder = tmp_path / "fetched"
    folder.mkdir()
    client.fetch_files(result, folder, quiet)
    assert len(list(folder.iterdir())) == len(result.files) > 0
    client.acknowledge(job_id)
    assert client.status().jobs == ()


@pytest.mark.sshd
@needs_sshd
def test_giving_up_says_how_to_pick_the_job_up_and_that_works(connect, board, sshd, tmp_path):
    client, job = connect(board), null_job(tmp_path, sleep_us=100_000)
    job_id = submit(client, job)
    with pytest.raises(DeviceUnreachable) as caught:
        client.follow(job_id, lambda event: sshd.stop(), patience_s=0.2)
    said = str(caught.value)
    assert "connection refused" in said
    remedy = "run the same command again to pick it up"
    assert said.endswith(f"; tried for 0.2 s to connect to board again; job {job_id} goes on there: {remedy}")
    sshd.start()
    events = []
    again = connect(board)
    assert again.find(job.spec).job_id == job_id
    assert again.follow(job_id, events.append) == "done"
    assert [event.seq for event in events] == list(range(1, len(events) + 1))


class Unplugged(AgentClient):
    """Its line is cut, for good, as soon as the agent knows that the results are here."""

    def acknowledge(self, job_id):
        super().acknowledge(job_id)
        self.unplug()


@pytest.mark.sshd
@needs_sshd
def test_a_line_that_is_cut_once_the_results_are_here_costs_nothing(board, sshd, bench, tmp_path):
    job = null_job(tmp_path)
    model, x_test, y_test = job.blobs
    artifact = Artifact(model.sha256, str(model.path), model.path.stat().st_size, 0, (), (), (), {})
    for samples in (x_test, y_test):
        samples.path.rename(tmp_path / f"{samples.sha256}.npy")
    x_file, y_file = (tmp_path / f"{samples.sha256}.npy" for samples in (x_test, y_test))
    samples = Samples(x_file, None, x_file, y_file, 1.0, 0.0, "a test")
    with Unplugged(open_transport(board), board.name, wait=quiet) as client:
        client.unplug = sshd.stop
        placed = [Placement("model", artifact, 1)]
        done = measure(client, job.spec, placed, samples, Cache(tmp_path / "cache"), False, NoProgress())
        with pytest.raises(DeviceUnreachable):
            client.status()
    stop_agent(Path(bench.home))
    assert done.result.state == "done"
    assert {file.name for file in done.result.files} <= {path.name for path in done.folder.iterdir()}


def test_an_agent_that_dies_whenever_it_is_followed_is_not_followed_for_ever(misbehaving):
    with pytest.raises(DeviceUnreachable, match=r"tried for 0.2 s to connect to peer again"):
        misbehaving(job_follow=None).follow(JOB_ID, quiet, patience_s=0.2)


def line(**message) -> str:
    return json.dumps(message) + "\n"


@pytest.mark.parametrize(
    ("hello", "said"),
    [
        ("Welcome to Raspbian!\n", 'peer said "Welcome to Raspbian!" instead of the agent\'s hello; the login shell'),
        ("\x1b[2J\xff\n", "instead of the agent's hello"),
        ("[" * 100_000 + "\n", "instead of the agent's hello"),
        (line(method="hi", params={}), "peer did not begin with the agent's hello"),
        (line(method="hello", params=[]), "peer did not begin with the agent's hello"),
        (line(method="hello", params={"protocol": 2}), "Hello.agent_version is missing"),
        ("x" * (1 << 20), "peer: the agent sent a line of more than 1048576 bytes"),
        (hello_line(home="agent"), "home is 'agent'; expected an absolute path"),
        (hello_line(home="/a\0b"), r"home is '/a\x00b'; expected an absolute path"),
        (hello_line(home="/\ud800"), r"home is '/\ud800'; expected an absolute path"),
        (hello_line(free_bytes=10**400), "free_bytes is 1000000"),
        (hello_line(free_bytes=-1), "free_bytes is -1"),
        (hello_line(runtimes=[3]), "Hello.runtimes[0] is 3; expected an object"),
    ],
)
def test_a_hello_that_is_none_is_one_message(misbehaving, hello, said):
    with pytest.raises(DeviceError) as caught:
        misbehaving(hello=hello).status()
    assert said in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("nonsense\n", "message is not ASCII JSON"),
        ("\xff\n", "message is not ASCII JSON"),
        ("[]\n", "message is a JSON list; expected an object"),
        ("x" * (1 << 20), "the agent sent a line of more than 1048576 bytes"),
        ('{"id":$ID}\n', "AgentStatus is None; expected an object"),
        ('{"id":$ID,"result":{"home":"/","free_bytes":"1"}}\n', "AgentStatus.free_bytes is '1'; expected int"),
        ('{"id":$ID,"result":{"home":"/","free_bytes":1,"jobs":{}}}\n', "AgentStatus.jobs is {}; expected a list"),
        ('{"id":$ID,"error":null}\n', "an error without a code"),
        ('{"id":$ID,"error":{"code":"1"}}\n', "an error without a code"),
        ('{"id":$ID,"error":{"code":7,"message":"\\u001b[2J\\ud800 gone"}}\n', "peer: [2J gone"),
    ],
)
def test_an_answer_of_another_form_is_one_message(misbehaving, answer, said):
    with pytest.raises(DeviceError) as caught:
        misbehaving(status=answer).status()
    assert said in str(caught.value)
    assert str(caught.value).isprintable()


def test_an_agent_that_misses_what_it_was_not_asked_about_is_refused(misbehaving, tmp_path):
    peer = misbehaving(blob_missing={"missing": [{"sha256": "a" * 64}]})
    with pytest.raises(DeviceError, match=r"misses a{64}, which it was not asked about"):
        peer.push([blob(tmp_path, b"secret")], quiet)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"job_id": "../../x", "state": "queued"}, "job_id is '../../x'; expected 16 lower-case hexadecimal digits"),
        ({"job_id": JOB_ID, "state": "lost"}, "job state is 'lost'; expected one of queued, running, done"),
    ],
)
def test_a_job_that_cannot_be_is_refused(misbehaving, tmp_path, answer, said):
    with pytest.raises(DeviceError) as caught:
        misbehaving(job_submit=answer).submit(null_job(tmp_path).spec)
    assert said in str(caught.value)


def test_an_event_of_another_form_is_one_message(misbehaving):
    peer = misbehaving(job_follow=line(method="job.event", params={"job_id": JOB_ID, "seq": "1"}))
    with pytest.raises(DeviceError, match=r"JobEvent.seq is '1'; expected int"):
        peer.follow(JOB_ID, quiet)


def test_events_of_other_jobs_and_events_seen_already_are_not_handed_on(misbehaving):
    def event(job_id, seq):
        return line(method="job.event", params={
            "job_id": job_id, "seq": seq, "stage": "timing", "model": "m", "done": 1, "total": 2,
        })  # fmt: skip

    told = event(JOB_ID, 1) + event("f" * 16, 2) + event(JOB_ID, 1) + event(JOB_ID, 2)
    seen = []
    peer = misbehaving(job_follow=told + '{"id":$ID,"result":{"state":"done"}}\n')
    assert peer.follow(JOB_ID, seen.append) == "done"
    assert [(event.job_id, event.seq) for event in seen] == [(JOB_ID, 1), (JOB_ID, 2)]


def test_the_result_of_another_job_is_refused(misbehaving):
    peer = misbehaving(job_result={**RESULT, "job_id": "../../../etc"})
    with pytest.raises(DeviceError, match=f"^the agent on peer answered with another job than {JOB_ID}$"):
        peer.result(JOB_ID)


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ({"name": "../x"}, "file name is '../x'"),
        ({"name": ".bashrc"}, "file name is '.bashrc'"),
        ({"size_bytes": -1}, "size_bytes of a.npy is -1"),
        ({"size_bytes": 1 << 40}, "size_bytes of a.npy is 1099511627776"),
    ],
)
def test_a_file_that_is_not_allowed_is_not_fetched(misbehaving, tmp_path, file, said):
    announced = {"name": "a.npy", "size_bytes": 1, "sha256": "a" * 64, **file}
    peer = misbehaving(job_result={**RESULT, "files": [announced]})
    folder = tmp_path / "fetched"
    folder.mkdir()
    with pytest.raises(DeviceError, match=r"^peer announces a file that is not allowed") as caught:
        peer.fetch_files(peer.result(JOB_ID), folder, quiet)
    assert said in str(caught.value)
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: path.write_bytes(bytes(path.stat().st_size)), "is damaged: its SHA-256 is not the one announced"),
        (lambda path: os.truncate(path, 5), "has 5 bytes; the agent announced"),
        (lambda path: path.unlink(), "No such file or directory"),
    ],
    ids=["other bytes", "too short", "gone"],
)
def test_a_fetched_file_that_is_damaged_is_not_kept(client, tmp_path, spoil, said):
    result = finish(client, null_job(tmp_path))
    spoiled = result.files[-1].name
    spoil(Path(job_file_path(client.hello.home, result.job_id, spoiled)))
    folder = tmp_path / "fetched"
    folder.mkdir()
    with pytest.raises(DeviceError) as caught:
        client.fetch_files(result, folder, quiet)
    assert said in str(caught.value)
    assert spoiled in str(caught.value)
    assert spoiled not in [path.name for path in folder.iterdir()]
    assert len(list(folder.iterdir())) == len(result.files) - 1


def test_an_answer_lost_with_the_connection_is_asked_for_again(misbehaving):
    status = {"home": "/", "free_bytes": 1, "jobs": []}
    peer = misbehaving(status=status, job_cancel=(None, {"state": "cancelled"}))
    peer.status()
    assert peer.cancel(JOB_ID) == "cancelled"


def test_an_acknowledgement_that_was_heard_before_the_cut_is_no_fault_the_second_time(misbehaving):
    forgotten = f'{{"id":$ID,"error":{{"code":{UNKNOWN_JOB},"message":"no job"}}}}\n'
    peer = misbehaving(status={"home": "/", "free_bytes": 1, "jobs": []}, job_acknowledge=(None, forgotten))
    peer.status()
    peer.acknowledge(JOB_ID)


def test_a_fresh_connection_that_is_cut_is_not_tried_for_ever(misbehaving):
    with pytest.raises(DeviceUnreachable, match=r"^the agent on peer has gone: it ended with exit status 0$"):
        misbehaving(status=None).status()
