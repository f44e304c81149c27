"""From a bare board to a measurement and back, through a real sshd: nothing is there but a home and a Python 3.

The tests share one board, and each first sees to it that the agent of this checkout is there: that takes no time when
it is. The one that begins with a bare board has one of its own.
"""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from bare_board import BareBoard
from processes import processes_with
from ssh_server import SshServer

from device_agent.installing.running import end_daemon
from device_agent.protocol import ConditionSpec, DataSpec, JobSpec, MeasureSpec, ModelSpec
from device_agent.releases import Releases
from device_agent.selftest import GOLDEN
from pipeline.agent_client import AgentClient, Blob
from pipeline.devices.device_file import change_device_file
from pipeline.devices.inventory import find_device
from pipeline.devices.provisioning.provision import Options, provision, unprovision
from pipeline.devices.transport import open_transport
from pipeline.errors import (
    AgentMissing,
    DeviceLeased,
    DeviceUnreachable,
    ProtocolMismatch,
    ProvisioningFailed,
    UsageError,
)
from pipeline.reporting.progress import NoProgress, NoStage

pytestmark = pytest.mark.sshd

EDGEPRESS = str(Path(sys.executable).with_name("edgepress"))
QUICK = MeasureSpec(processes=1, warmup_s=0.0, timing_s=0.0, min_invokes=4, max_invokes=4)
CALM = ConditionSpec(max_temperature_c=None, max_other_cpus=None)
NETWORK = Path(__file__).parents[3] / "data" / "models" / "network.tflite"
EXPERIMENT = """name: network
model: {model}
data: {{file: {data}}}
metric: top1
measure: {{processes: 2, warmup_s: 0.05, timing_s: 0.05}}
variants:
  as_it_is: []
"""
NO_PROGRESS = NoProgress()
VERSIONS = {"litert": "litert 2.3.0", "tflite_runtime": "tflite_runtime 2.14.0"}
NEWER = {"__init__.py": ('"0.1.0"', '"0.1.1"')}


@pytest.fixture(scope="module")
def shared_board(tmp_path_factory, keys):
    made = BareBoard(tmp_path_factory.mktemp("board"), keys["host_a"], keys["user"])
    yield made
    made.stop()


@pytest.fixture
def shared(shared_board, home, tmp_path, monkeypatch, pip_cache):
    """The shared board as the device "bare" of this test's inventory."""
    monkeypatch.setenv("PIP_CACHE_DIR", pip_cache)
    monkeypatch.setenv("EDGEPRESS_DEVICES", str(tmp_path / "devices"))
    (home / ".ssh" / "known_hosts").write_text(shared_board.server.known_hosts_line)
    (tmp_path / "devices").mkdir()
    (tmp_path / "devices" / "bare.yaml").write_text(shared_board.yaml())
    return shared_board


@pytest.fixture
def put(cache, shared):
    """A function that provisions the shared board, and says what came of it."""

    def run(progress=NO_PROGRESS, **options):
        return provision(find_device("bare"), Options(**options), cache, progress)

    return run


def client() -> AgentClient:
    return AgentClient(open_transport(find_device("bare")), "bare")


def golden_job(runtime: str, folder: Path) -> tuple[JobSpec, list[Blob]]:
    """Return a job that scores the golden model by the numbers that its runtime is to give, and its files."""
    golden = json.loads((GOLDEN / "golden.json").read_text())
    # Of the model's first tensor the scale is 1/127 and the zero point -1: a job's samples are real numbers.
    np.save(folder / "inputs.npy", ((np.array(golden["inputs"]) + 1) / 127).astype(np.float32).reshape(-1, 8, 8, 3))
    np.save(folder / "labels.npy", np.array(golden["outputs"][VERSIONS[runtime]]).argmax(1))
    paths = [GOLDEN / "golden.tflite", folder / "inputs.npy", folder / "labels.npy"]
    blobs = [Blob(hashlib.sha256(path.read_bytes()).hexdigest(), path) for path in paths]
    model = ModelSpec("golden", blobs[0].sha256, runtime)
    data = DataSpec(blobs[1].sha256, blobs[2].sha256, len(golden["inputs"]))
    return JobSpec("golden", (model,), data, "top1", measure=QUICK, conditions=CALM), blobs


def measure(host: AgentClient, runtime: str, folder: Path) -> str:
    """Run the golden job to its end, look at what came of it, and return its id; the board keeps it."""
    spec, blobs = golden_job(runtime, folder)
    host.acquire("a test")
    host.push(blobs, lambda done, total: None)
    job_id = host.submit(spec)
    assert host.follow(job_id, lambda event: None) == "done"
    [measurement] = host.result(job_id).measurements
    assert measurement.score.value == 1.0
    host.release()
    return job_id


class CutAtHalf(NoProgress):
    """Cuts every connection to a server once half of the bundle is there."""

    def __init__(self, server: SshServer) -> None:
        self.server = server

    def stage(self, name, total=None, unit="steps"):
        return self if name == "push" else NoStage()

    def update(self, done, total=None):
        if done > total // 2:
            self.server.cut_connections()

    def finish(self, text="done"):
        pass


def changed_ns(path: Path) -> int:
    return path.stat().st_mtime_ns


@pytest.mark.tensorflow
def test_a_bare_board_is_added_provisioned_checked_measured_and_cleared(board, cache, tmp_path, monkeypatch):
    """The five lines of the README, as a user types them."""
    random = np.random.default_rng(0)
    samples = random.uniform(-1, 1, (16, 4)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x_test=samples, y_test=random.integers(0, 4, 16))
    experiment = tmp_path / "network.yaml"
    experiment.write_text(EXPERIMENT.format(model=NETWORK, data=tmp_path / "data.npz"))
    (tmp_path / "devices").mkdir()
    monkeypatch.setenv("EDGEPRESS_DEVICES", str(tmp_path / "devices"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache.folder.parent))
    monkeypatch.setenv("COLUMNS", "200")

    def edgepress(*words: object) -> str:
        command = [EDGEPRESS, *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=dict(os.environ))
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    server, bare = board.server, board.files
    assert bare == []
    address = ["--host", server.host, "--port", server.port, "--user", server.user]
    edgepress("device", "add", "pi4", *address, "--identity-file", server.user_key)
    assert "pi4 was trusted already" in edgepress("device", "trust", "pi4")
    assert "agent missing" in edgepress("device", "list")

    said = edgepress("device", "provision", "pi4")
    for stage in ("probe: ", "bundle: release ", "push: ", "unpack: done", "self-test: done", "start: done"):
        assert stage in said
    assert "next: edgepress device check pi4" in said
    assert "the agent starts when a host asks for it, not with the board: there is no systemd" in said

    checked = edgepress("device", "check", "pi4")
    for word in ("governor", "throttling", "temperature", "swap", "other load", "clock", "disk", "litert 2"):
        assert word in checked
    edgepress("run", experiment, "--device", "pi4", "--quiet")
    assert "nothing changed: pi4 has release" in edgepress("device", "provision", "pi4")

    removed = edgepress("device", "unprovision", "pi4")
    assert f"removed {board.agent_home}\n" in removed
    assert board.files == bare
    assert "agent missing" in edgepress("device", "list")
    assert edgepress("device", "unprovision", "pi4") == "nothing was installed on pi4\n"


def test_a_board_that_has_it_already_is_sent_nothing_and_its_file_says_where_the_agent_is(shared, put):
    first = put()
    assert (first.is_changed, first.note) == (True, "there is no systemd")
    assert first.sent_bytes > 1_000_000
    runtimes = {runtime.name: runtime.version for runtime in first.hello.runtimes}
    assert runtimes["litert"]
    assert runtimes["tflite_runtime"] is None
    text = find_device("bare").file.read_text()
    assert text == shared.yaml() + f"agent: {shared.root}/current/bin/edgepress-agent\nhome: {shared.agent_home}\n"
    again = put()
    assert (again.is_changed, again.sent_bytes, again.release) == (False, 0, first.release)
    assert find_device("bare").file.read_text() == text


def test_an_upgrade_sends_the_agent_alone_and_keeps_jobs_and_the_old_release(shared, put, agent_copy, tmp_path):
    old = put().release
    with client() as host:
        job_id = measure(host, "litert", tmp_path)
    upgraded = put(agent=agent_copy(NEWER))
    assert 0 < upgraded.sent_bytes < 500_000
    assert upgraded.hello.agent_version == "0.1.1"
    assert upgraded.hello.release == upgraded.release != old
    releases = Releases(shared.root)
    assert (releases.current, releases.previous) == (upgraded.release, old)
    with client() as host:
        assert [(job.job_id, job.state) for job in host.status().jobs] == [(job_id, "done")]
    with pytest.raises(ProvisioningFailed, match=f"bare: there are results that no host has fetched: {job_id}; "):
        unprovision(find_device("bare"), Options())
    with client() as host:
        host.acknowledge(job_id)


def test_a_run_that_was_cut_before_its_end_is_finished_by_the_next_one(shared, put):
    """All is in place by then, but what was sent is still there, and nobody knows whether the agent was started."""
    release = put().release
    incoming = shared.root / "incoming"
    incoming.mkdir()
    (incoming / f".part-{'0' * 64}").write_bytes(b"of an earlier bundle")
    again = put()
    assert (again.release, again.sent_bytes, again.is_changed) == (release, 0, True)
    assert not incoming.exists()
    assert not put().is_changed


def test_a_push_that_is_cut_goes_on_where_it_was_and_then_both_runtimes_give_their_own_numbers(
    shared, put, cache, tmp_path
):
    put()
    both = ("litert", "tflite_runtime")
    with pytest.raises(DeviceUnreachable):
        put(CutAtHalf(shared.server), runtimes=both)
    there = sum(part.stat().st_size for part in (shared.root / "incoming").glob(".part-*"))
    assert there > 1_000_000
    sent_bytes = put(runtimes=both).sent_bytes
    newest = [max(cache.folder.glob(f"{kind}/*/part.tar.gz"), key=changed_ns) for kind in ("releases", "environments")]
    # The environment of LiteRT was there.
    assert there + sent_bytes == sum(path.stat().st_size for path in newest)
    with client() as host:
        for runtime in both:
            host.acknowledge(measure(host, runtime, tmp_path))
    # Without being asked again, what was there is kept.
    assert not put().is_changed
    put(runtimes=("litert",))


def test_the_release_sees_none_of_the_users_packages(shared, put):
    put()
    folder = f".local/lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
    leaks = [shared.home / folder / "numpy" / "__init__.py"]
    leaks += [shared.home / name for name in ("numpy.py", "json.py", "device_agent.py")]
    for leak in leaks:
        leak.parent.mkdir(parents=True, exist_ok=True)
        leak.write_text("raise SystemExit('this is not what was installed')\n")
    environment = {"HOME": str(shared.home), "PATH": str(shared.programs), "PYTHONPATH": str(shared.home)}
    # It is to be started with all of that.
    end_daemon(shared.agent_home)
    command = [str(shared.root / "current/bin/edgepress-agent"), "attach", "--home", str(shared.agent_home)]
    attach = subprocess.Popen(
        command, env=environment, cwd=shared.home, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    hello = json.loads(attach.stdout.readline())["params"]
    attach.communicate()
    end_daemon(shared.agent_home)
    for leak in leaks:
        leak.unlink()
    assert [runtime["version"] for runtime in hello["runtimes"] if runtime["name"] in ("litert", "null")] == [
        hello["runtimes"][0]["version"],
        "1",
    ]


def test_another_home_in_the_devices_file_moves_the_agent_and_both_homes_are_removed(shared, put):
    release, moved = put().release, shared.home / "disk" / "agent"
    with client() as host:
        assert host.hello.home == str(shared.agent_home)
        change_device_file(find_device("bare").file, {"home": str(moved)})
        # Until it is provisioned, no second agent starts in the new home beside the first.
        with (
            client() as second,
            pytest.raises(AgentMissing, match=f"installed to keep its files in {shared.agent_home}"),
        ):
            second.status()
        assert not moved.exists()
        # Who has leased it is heeded where the agent is, not where it is to be.
        host.acquire("ana@laptop, run digits")
        with pytest.raises(DeviceLeased, match="ana@laptop, run digits"):
            put()
        host.release()
    again = put()
    assert (again.is_changed, again.sent_bytes, again.release, again.hello.home) == (True, 0, release, str(moved))
    assert len(processes_with(f"serve --home {shared.home}".replace(" ", "\0"))) == 1
    assert not put().is_changed
    removed = unprovision(find_device("bare"), Options())
    assert {str(moved), str(shared.agent_home)} <= set(removed)
    assert not shared.agent_home.exists() and not moved.parent.exists()


def test_a_broken_self_test_keeps_the_old_release_and_says_why(shared, put, agent_copy):
    old = put().release
    golden = json.loads((GOLDEN / "golden.json").read_text())["outputs"]["litert 2.3.0"][0]
    changed = json.dumps([golden[0] ^ 1, *golden[1:]])
    broken = agent_copy(
        {"golden/golden.json": (f'"litert 2.3.0": [{json.dumps(golden)}', f'"litert 2.3.0": [{changed}')}
    )
    with pytest.raises(
        ProvisioningFailed, match=r"bare: self-test of litert failed: RuntimeError: litert 2\.3\.0 gives"
    ):
        put(agent=broken)
    assert Releases(shared.root).current == old
    with client() as host:
        assert host.hello.release == old


def test_an_agent_that_does_not_start_is_rolled_back(shared, put, agent_copy):
    old = put().release
    broken = agent_copy({"daemon.py": ("    os.umask(0o077)\n", "    raise AgentError('no')\n")})
    with pytest.raises(ProvisioningFailed, match=f"the agent did not start: .* no .*; went back to release {old}"):
        put(agent=broken)
    with client() as host:
        assert host.hello.release == old


def test_a_board_that_another_has_leased_is_left_alone(shared, put, agent_copy):
    old = put().release
    with client() as other:
        other.acquire("ana@laptop, run digits")
        with pytest.raises(DeviceLeased, match="ana@laptop, run digits"):
            put(agent=agent_copy(NEWER))
        with pytest.raises(DeviceLeased, match="ana@laptop, run digits"):
            unprovision(find_device("bare"), Options())
    assert Releases(shared.root).current == old


def test_an_agent_of_another_protocol_says_so_and_is_replaced(shared, put, agent_copy):
    put()
    protocol = shared.root / "current/agent/device_agent/protocol/__init__.py"
    protocol.write_text(protocol.read_text().replace("PROTOCOL_VERSION = 2", "PROTOCOL_VERSION = 1"))
    end_daemon(shared.agent_home)
    with pytest.raises(ProtocolMismatch) as refused, client() as host:
        host.status()
    remedy = 'run "edgepress device provision bare"'
    assert str(refused.value) == f"agent on bare speaks protocol 1, this host needs 2; {remedy}"
    assert put(agent=agent_copy(NEWER)).hello.agent_version == "0.1.1"


def test_this_machine_itself_is_not_provisioned(cache):
    with pytest.raises(UsageError, match='device "local" is this machine; it has this checkout'):
        provision(find_device("local"), Options(), cache, NO_PROGRESS)
    with pytest.raises(UsageError, match='device "local" is this machine; nothing was installed'):
        unprovision(find_device("local"), Options())
