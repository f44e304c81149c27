"""A run on several boards: real SSH servers and real agents; only the models are the stand-in runtime's."""

import contextlib
import json
import os
import signal
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from agents import stop_agent
from null_fleet import TWO_VARIANTS, null_build, null_experiment, write_board
from ssh_server import SSHD, SshServer, make_key

from pipeline.agent_client import AgentClient
from pipeline.cache import Cache
from pipeline.devices.inventory import find_device
from pipeline.devices.transport import open_transport
from pipeline.errors import DeviceError, UsageError
from pipeline.experiment import Options, Run, run_experiment
from pipeline.reporting.progress import NoProgress
from pipeline.results.fleet_store import read_fleet
from pipeline.results.store import read_record

pytestmark = [
    pytest.mark.sshd,
    pytest.mark.skipif(SSHD is None, reason="no sshd on this machine: install openssh-server"),
]


@dataclass
class Told(NoProgress):
    """Remembers what each stage of each device ended with."""

    lines: list[str] = field(default_factory=list)
    name: str = ""
    on_line: list[Callable[[str], None]] = field(default_factory=list)

    def device(self, name):
        return Told(self.lines, name, self.on_line)

    def say(self, line):
        self.lines.append(line)
        for heed in list(self.on_line):
            heed(line)

    def stage(self, name, total=None, unit="steps"):
        told, place = self, f"{self.name}: {name}"
        told.say(place)

        class Stage:
            def advance(self, amount=1):
                pass

            def update(self, done, total=None):
                told.say(f"{place}: {done}")

            def finish(self, text="done"):
                told.say(f"{place}: {text.partition(', with')[0]}")

        return Stage()


class Lab:
    """A server on loopback that stands for every board, and the folder of their files."""

    def __init__(self, folder: Path, homes: Path, server: SshServer) -> None:
        self.folder, self.homes, self.server = folder, homes, server
        self.told = Told()
        self.variants = {"small": {"invoke_us": 100}}

    def add(self, name: str, home: Path | None = None, **more: object) -> Path:
        return write_board(self.folder / "devices", name, self.server, home or self.homes / name, **more)

    def run(self, *devices: str, wait: bool = False, resume: str = "", reuse: bool = False, **lines: str) -> Run:
        experiment = null_experiment(self.folder, self.variants, devices=f"[{', '.join(devices or ['none'])}]", **lines)
        options = Options(self.folder / "runs", Cache(self.folder / "cache"), reuse, wait, (), resume)
        return run_experiment(experiment, options, self.told, null_build(self.folder, self.variants))

    @contextlib.contextmanager
    def leased(self, name: str):
        """Another host has the device meanwhile."""
        with AgentClient(open_transport(find_device(name)), name) as other:
            other.acquire("ana@laptop, run x")
            yield


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """One server for all tests, under which each name is a board that goes on from test to test."""
    folder = tmp_path_factory.mktemp("server")
    with SshServer(folder / "sshd", [make_key(folder / "host")], make_key(folder / "user")) as running:
        yield running


@pytest.fixture(scope="module")
def homes(tmp_path_factory):
    """The folders of the agents."""
    folder = tmp_path_factory.mktemp("homes")
    yield folder
    for home in folder.iterdir():
        stop_agent(home)


@pytest.fixture
def lab(tmp_path, server, homes, monkeypatch):
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "SSH_AUTH_SOCK"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "devices").mkdir()
    (tmp_path / "home" / ".ssh").mkdir(parents=True, mode=0o700)
    (tmp_path / "home" / ".ssh" / "known_hosts").write_text(server.known_hosts_line)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("EDGEPRESS_DEVICES", str(tmp_path / "devices"))
    return Lab(tmp_path, homes, server)


@pytest.fixture
def stop_later():
    """A function that has the agent of a home ended after the test."""
    with contextlib.ExitStack() as stack:
        yield lambda home: stack.callback(stop_agent, home)


@pytest.fixture
def closed_port():
    """A port that nobody else can take, and where nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def test_every_device_is_measured_and_has_a_record_of_its_own_in_one_folder(lab):
    lab.variants = TWO_VARIANTS
    for name in ("pi-a", "pi-b", "pi-c"):
        lab.add(name)
    run = lab.run("pi-a", "pi-b", "pi-c")
    assert (run.measured, run.budget_met, run.rest) == (True, True, False)
    assert sorted(path.name for path in run.folder.iterdir()) == [
        "devices", "fleet.json", "models", "report.html", "report.md",
    ]  # fmt: skip
    assert sorted(path.name for path in (run.folder / "models").iterdir()) == ["float32.tflite", "small.tflite"]
    stored = read_fleet(run.folder)
    assert [(o.device, o.done, o.taken_over) for o in stored.record.devices] == [
        ("pi-a", True, False), ("pi-b", True, False), ("pi-c", True, False),
    ]  # fmt: skip
    assert stored.record.verdict.chosen == "small"
    assert stored.record.verdict.reason.startswith("small may ship on all 3 devices: ")
    nanoseconds = set()
    for name, record in stored.runs.items():
        folder = run.folder / "devices" / name
        assert (record.device_name, record.run_id) == (name, f"{run.folder.name}-{name}")
        assert record == read_record(folder / "report.json")
        assert (folder / "report.md").is_file()
        for variant in record.variants:
            assert (folder / variant.artifact.path).read_bytes() == Path(
                run.folder / "models" / f"{variant.name}.tflite"
            ).read_bytes()
            nanoseconds.add((folder / "samples" / variant.measurement.blocks[0].file_name).read_bytes())
    assert len(nanoseconds) == 6, "no board's numbers were taken for another's"


def test_devices_are_under_way_at_the_same_time(lab):
    for name in ("pi-a", "pi-b"):
        lab.add(name)
    both = threading.Barrier(2)
    lab.told.on_line.append(lambda said: said.endswith(": measure") and both.wait(60))
    lab.run("pi-a", "pi-b")
    begun = [lab.told.lines.index(f"{name}: measure") for name in ("pi-a", "pi-b")]
    ended = [lab.told.lines.index(f"{name}: measure: done") for name in ("pi-a", "pi-b")]
    assert max(begun) < min(ended)


def failures(run: Run) -> dict[str, tuple[str, str]]:
    """Return kind and message of each device that failed."""
    found = json.loads((run.folder / "fleet.json").read_text())["devices"]
    return {o["device"]: (o["failure"]["kind"], o["failure"]["message"]) for o in found if o["failure"]}


def test_one_that_is_down_full_or_leased_fails_alone_and_its_part_is_done_later(
    lab, small_disk, closed_port, stop_later
):
    lab.variants = {"small": {"pad": "x" * 200_000}}
    lab.add("pi-a")
    lab.add("pi-b", port=closed_port)
    lab.add("full", home=small_disk / "agent")
    stop_later(small_disk / "agent")
    lab.add("pi-c")
    filler = small_disk / "filler"
    filler.write_bytes(bytes((1 << 20) - (128 << 10)))
    with lab.leased("pi-c"):
        run = lab.run("pi-a", "pi-b", "full", "pi-c")
    assert (run.measured, run.rest, run.interrupted) == (False, True, False)
    failed = failures(run)
    assert {name: kind for name, (kind, _) in failed.items()} == {
        "pi-b": "unreachable", "full": "full", "pi-c": "leased",
    }  # fmt: skip
    assert "connection refused" in failed["pi-b"][1]
    assert failed["full"][1].startswith("full has no room: 200")
    assert f" are free in {small_disk}/agent; make room there" in failed["full"][1]
    assert "pi-c: the device is leased by ana@laptop, run x since " in failed["pi-c"][1]
    assert not list((small_disk / "agent" / "blobs").iterdir()), "nothing was sent to a disk that is full"
    verdict = read_fleet(run.folder).record.verdict
    assert verdict.chosen == "small"
    assert verdict.reason.endswith("; nothing is known of pi-b, full, pi-c")
    assert all("connection refused" in (run.folder / page).read_text() for page in ("report.md", "report.html"))

    # All are well again, but the good one cannot even be reached: it is not needed any more.
    filler.unlink()
    lab.add("pi-b")
    lab.add("pi-a", port=closed_port)
    rest = lab.run(resume=run.folder.name)
    assert (rest.measured, rest.rest, rest.folder != run.folder) == (True, False, True)
    stored = read_fleet(rest.folder)
    assert [(o.device, o.taken_over) for o in stored.record.devices] == [
        ("pi-a", True), ("pi-b", False), ("full", False), ("pi-c", False),
    ]  # fmt: skip
    assert stored.record.resumed == run.folder.name
    assert stored.record.verdict.reason.startswith("small may ship on all 4 devices: ")
    assert stored.runs["pi-a"] == read_fleet(run.folder).runs["pi-a"]
    kept, before = (
        sorted(path.relative_to(root) for path in (root / "devices" / "pi-a").rglob("*"))
        for root in (rest.folder, run.folder)
    )
    assert kept == before


def test_what_is_asked_now_must_be_what_was_asked_or_it_is_done_again(lab, closed_port):
    lab.add("pi-a")
    lab.add("pi-b", port=closed_port)
    run = lab.run("pi-a", "pi-b")
    lab.add("pi-b")
    rest = lab.run(resume=str(run.folder), budget="{p50_ms: 0.2}")
    assert [outcome.taken_over for outcome in read_fleet(rest.folder).record.devices] == [False, False]
    assert f"pi-a: again: something else was asked of it in {run.folder.name}" in lab.told.lines


def test_a_board_that_is_called_emulated_now_is_done_again(lab, closed_port):
    lab.add("pi-a")
    lab.add("pi-b", port=closed_port)
    run = lab.run("pi-a", "pi-b")
    lab.add("pi-a", emulated="true")
    rest = read_fleet(lab.run(resume=run.folder.name).folder)
    assert [(o.device, o.done, o.taken_over) for o in rest.record.devices] == [
        ("pi-a", True, False), ("pi-b", False, False),
    ]  # fmt: skip
    assert [variant.numbers.p50_ns for variant in rest.runs["pi-a"].variants] == [None]


def test_a_slow_device_is_given_up_in_time_and_the_others_are_in_the_report(lab):
    lab.add("pi-a")
    lab.add("pi-b")
    with lab.leased("pi-b"):
        run = lab.run("pi-a", "pi-b", wait=True, limits="{device_timeout_s: 10}")
        assert failures(run) == {
            "pi-b": (
                "interrupted",
                "pi-b: it was not done within 10 s, its device_timeout_s; a job that it was given goes on there",
            )
        }
    assert read_fleet(run.folder).record.devices[0].done
    with AgentClient(open_transport(find_device("pi-b")), "pi-b") as client:
        assert client.status().lease is None, "nothing waits for the device any more"


def ctrl_c_at(lab, line: str) -> None:
    """Have Ctrl-C come when a device's progress says so, once."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite under nohup ignores it

    def interrupt(said):
        if said == line:
            lab.told.on_line.clear()
            os.kill(os.getpid(), signal.SIGINT)

    lab.told.on_line.append(interrupt)


def test_ctrl_c_keeps_what_is_done_and_the_rest_is_done_by_the_run_that_resumes(lab):
    lab.add("pi-a")
    lab.add("pi-b")
    ctrl_c_at(lab, "pi-a: done: small may ship: the only one of 1 variant with VALID numbers (no budget is set)")
    with lab.leased("pi-b"):
        run = lab.run("pi-a", "pi-b", wait=True)
    assert (run.interrupted, run.rest) == (True, True)
    kind, message = failures(run)["pi-b"]
    assert (kind, message) == ("interrupted", "pi-b: it was interrupted; a job that it was given goes on there")
    rest = lab.run(resume=run.folder.name)
    assert [(o.device, o.taken_over, o.done) for o in read_fleet(rest.folder).record.devices] == [
        ("pi-a", True, True), ("pi-b", False, True),
    ]  # fmt: skip


def test_ctrl_c_ends_all_at_once_and_jobs_go_on_and_are_picked_up_by_the_next_run(lab):
    lab.variants = {"small": {"invoke_us": 30_000}}
    for name in ("pi-a", "pi-b"):
        lab.add(name)
    ctrl_c_at(lab, "pi-a: measure: 0")
    with pytest.raises(KeyboardInterrupt):
        lab.run("pi-a", "pi-b")
    with AgentClient(open_transport(find_device("pi-a")), "pi-a") as client:
        assert [job.state for job in client.status().jobs] in (["running"], ["done"])
    run = lab.run("pi-a", "pi-b")
    assert run.measured
    assert lab.told.lines.count("pi-a: push") == 1, "the job of the run before was taken over"


def test_one_device_by_name_and_by_tag_is_measured_once_and_alone_like_any_single_device(lab):
    lab.add("pi-a", tags="[lab]")
    run = lab.run("pi-a", "tag:lab")
    assert {"report.json", "report.md", "report.html", "models", "samples"} == {p.name for p in run.folder.iterdir()}
    assert read_record(run.folder / "report.json").device_name == "pi-a"


def test_when_no_device_can_be_used_nothing_is_built_and_all_reasons_are_told(lab, closed_port):
    lab.add("pi-a", port=closed_port)
    lab.add("pi-b", agent="/no/such/agent")
    with pytest.raises(DeviceError) as caught:
        lab.run("pi-a", "pi-b")
    lines = str(caught.value).splitlines()
    assert "connection refused" in lines[0] and "/no/such/agent" in lines[1]
    assert not (lab.folder / "d.npz").exists()
    assert not list((lab.folder / "runs").iterdir())


def test_two_names_of_one_agent_are_refused(lab):
    lab.add("pi-a")
    lab.add("pi-b", home=lab.homes / "pi-a")
    with pytest.raises(
        UsageError, match=r'^devices "pi-a" and "pi-b" have the same address and home; name one of them'
    ):
        lab.run("pi-a", "pi-b")


def test_measurements_are_reused_device_by_device(lab):
    for name in ("pi-a", "pi-b"):
        lab.add(name)
    first, second = lab.run("pi-a", "pi-b"), lab.run("pi-a", "pi-b", reuse=True)
    runs, again = read_fleet(first.folder).runs, read_fleet(second.folder).runs
    for name in ("pi-a", "pi-b"):
        assert all(variant.reused for variant in again[name].variants)
        assert [v.measurement for v in again[name].variants] == [v.measurement for v in runs[name].variants]


@pytest.mark.parametrize(
    ("run", "said"),
    [("none", 'unknown run "none"; runs on several devices in '), ("single", "is a run on one device: there is no")],
)
def test_a_run_that_cannot_be_resumed_is_told(lab, run, said):
    (lab.folder / "runs" / "single").mkdir(parents=True)
    (lab.folder / "runs" / "single" / "report.json").touch()
    with pytest.raises(UsageError, match=said):
        lab.run(resume=run)
