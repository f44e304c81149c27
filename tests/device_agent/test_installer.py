"""The installer, as a process with a home of its own: what it puts there, and what is there when it is killed."""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from boards import NULL_ONLY
from processes import wait_for
from small_bundles import FAILS, SmallBundle, small_bundle

import device_agent
from device_agent.errors import AgentError
from device_agent.home import socket_path
from device_agent.installing import cli
from device_agent.layout import SYSTEM_ROOT
from device_agent.protocol import decode, encode
from device_agent.reaching import connect
from device_agent.releases import Releases

AGENT_FOLDER = Path(device_agent.__file__).parent
KILLS = 10


class Board:
    """A home, and the installer in it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.root = home / ".local/share/edgepress"
        self.incoming = self.root / "incoming"
        self.agent_home = home / ".local/share/edgepress-agent"
        self.environment = {"HOME": str(home), "PATH": "/usr/bin:/bin", "PYTHONPATH": str(AGENT_FOLDER.parent)}

    @property
    def releases(self) -> Releases:
        return Releases(self.root)

    def bring(self, bundle: SmallBundle) -> None:
        """Put the installer and a bundle where a host puts them."""
        self.incoming.mkdir(parents=True, exist_ok=True)
        for part in bundle.parts:
            shutil.copy(part.path, self.incoming / f".part-{part.part.sha256}")

    def move(self, name: str) -> Path:
        """Choose another home for the agent, and return the one it had."""
        before, self.agent_home = self.agent_home, self.home / name
        return before

    def command(self, command: str, *words: str) -> list[str]:
        places = ["--home", str(self.agent_home), "--incoming", str(self.incoming)]
        # Not from the zip, as on a board: each start would compile it anew.
        return [sys._base_executable, "-S", "-m", "device_agent.installing.cli", command, *places, *words]

    def start(self, command: str, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(self.command(command, *words), env=self.environment, stdout=subprocess.PIPE, text=True)

    def ask(self, command: str, *words: str) -> dict:
        """Return the installer's last word."""
        process = self.start(command, *words)
        return json.loads(process.communicate(timeout=60)[0].splitlines()[-1])

    def install(self, bundle: SmallBundle) -> dict:
        self.bring(bundle)
        return self.ask("install", *bundle.words)

    def is_whole(self, bundle: SmallBundle) -> bool:
        """Say whether each file of the release and its environment is there as it was sent."""
        folder = self.releases.folder(bundle.release)
        runtime = folder / "runtimes" / "litert"
        files = [(folder, bundle.agent.files), (runtime, bundle.environment.files)]
        is_same = all(
            (place / name).read_bytes() == content for place, found in files for name, content in found.items()
        )
        return is_same and (runtime / "bin/python").exists() and (runtime / "pyvenv.cfg").is_file()


@pytest.fixture
def board(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    return Board(home)


@pytest.fixture
def bundles(tmp_path):
    """Two releases."""
    return small_bundle(tmp_path, "1", extra=40), small_bundle(tmp_path, "2", extra=40)


def test_a_release_is_installed_and_the_next_one_keeps_it_as_the_previous_one(board, bundles):
    old, new = bundles
    assert board.install(old)["result"]["release"] == old.release
    assert board.install(new)["result"] == {
        "release": new.release,
        "previous": old.release,
        "note": "there is no systemd",
        "unit": False,
    }
    assert (board.releases.current, board.releases.previous) == (new.release, old.release)
    assert board.is_whole(old)
    assert board.is_whole(new)


def test_only_one_release_before_the_current_one_is_kept(board, bundles, tmp_path):
    for bundle in (*bundles, small_bundle(tmp_path, "3")):
        board.install(bundle)
    assert sorted(path.name for path in (board.root / "releases").iterdir()) == sorted(
        [bundles[1].release, board.releases.current]
    )


def test_what_the_host_has_sent_is_gone_afterwards(board, bundles):
    board.install(bundles[0])
    assert sorted(path.name for path in board.root.iterdir()) == [
        "current", "environments", "install.lock", "releases", "service.json",
    ]  # fmt: skip


def test_the_environment_is_the_boards_python_and_sees_no_other_packages(board, bundles):
    board.install(bundles[0])
    python = board.releases.folder(bundles[0].release) / "runtimes/litert/bin/python"
    assert python.resolve() == Path(sys._base_executable).resolve()
    program = "import device_agent, sys; print(device_agent.__version__, *sys.path)"
    said = subprocess.run(
        [str(python), "-c", program], capture_output=True, text=True, check=True, env={}, cwd="/"
    ).stdout
    assert said.startswith("1 ")
    assert [word for word in said.split()[1:] if "-packages" in word] == [
        str(python.parents[1] / f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages")
    ]


def test_a_self_test_that_fails_leaves_the_old_release_as_it_was_and_nothing_of_the_new(board, bundles, tmp_path):
    board.install(bundles[0])
    broken = small_bundle(tmp_path, "9", FAILS)
    assert board.install(broken) == {"error": "self-test of litert failed: the numbers are wrong"}
    assert (board.releases.current, board.releases.previous) == (bundles[0].release, None)
    assert [path.name for path in (board.root / "releases").iterdir()] == [bundles[0].release]


def test_a_bundle_that_came_damaged_is_not_unpacked(board, bundles):
    board.bring(bundles[0])
    part = board.incoming / f".part-{bundles[0].agent.part.sha256}"
    part.write_bytes(part.read_bytes()[:-9] + b"12345678" + b"\0")
    assert "it came damaged, send it again" in board.ask("install", *bundles[0].words)["error"]
    assert board.releases.current is None


def test_a_part_that_holds_something_else_is_refused(board, bundles):
    old, new = bundles
    board.bring(old)
    named = f":{new.release}:{old.agent.part.sha256}"
    said = board.ask("install", "--part", named)
    assert said["error"].endswith(f"holds {old.release}; expected {new.release}")


def test_a_release_without_its_environment_is_refused(board, bundles):
    board.bring(bundles[0])
    said = board.ask("install", *bundles[0].words[:2])
    assert said == {"error": "release needs an environment for litert, which did not come with it"}
    assert board.releases.current is None


def test_an_environment_that_is_here_is_shared_by_releases_and_goes_with_the_last_of_them(board, tmp_path):
    one, two = (small_bundle(tmp_path, version) for version in "12")
    board.install(one)
    board.bring(two)
    (board.incoming / f".part-{two.environment.part.sha256}").unlink()
    assert board.ask("install", *two.words)["result"]["release"] == two.release
    assert board.is_whole(one)
    assert board.is_whole(two)
    assert len(list((board.root / "environments").iterdir())) == 1
    board.install(small_bundle(tmp_path, "3", packages="3"))
    assert len(list((board.root / "environments").iterdir())) == 2
    board.install(small_bundle(tmp_path, "4", packages="3"))
    assert len(list((board.root / "environments").iterdir())) == 1


def test_a_release_whose_python_is_gone_is_put_there_anew(board, bundles):
    board.install(bundles[0])
    runtime = board.releases.folder(bundles[0].release) / "runtimes/litert"
    (runtime / "bin/python").unlink()
    (runtime / "bin/python").symlink_to("/usr/bin/python3.0")
    board.bring(bundles[0])
    said = board.ask("prepare", *bundles[0].words)["result"]["parts"]
    assert [part["is_here"] for part in said] == [False, False]
    assert board.ask("install", *bundles[0].words)["result"]["release"] == bundles[0].release
    assert board.is_whole(bundles[0])


def test_a_release_for_another_python_is_refused(board, tmp_path):
    said = board.install(small_bundle(tmp_path, "1", python="3.8"))
    assert said["error"].startswith("release is for Python 3.8; ")


def test_prepare_says_what_is_there_of_each_part_and_removes_parts_of_others(board, bundles):
    old, new = bundles
    board.bring(old)
    part = board.incoming / f".part-{new.agent.part.sha256}"
    part.write_bytes(new.agent.path.read_bytes()[:100])
    said = board.ask("prepare", *new.words)["result"]
    agent, environment = said["parts"]
    assert (agent["is_here"], agent["part_bytes"]) == (False, 100)
    assert environment["part_bytes"] == new.environment.path.stat().st_size
    assert said["same_disk"]
    assert said["root_free_bytes"] > 0
    assert not (board.incoming / f".part-{old.agent.part.sha256}").exists()
    board.install(old)
    board.bring(new)
    (board.incoming / f".part-{new.environment.part.sha256}").unlink()
    agent, environment = board.ask("prepare", *new.words)["result"]["parts"]
    assert (agent["is_here"], environment["is_here"]) == (False, True)
    assert environment["part_sha256"] is None


def test_room_is_looked_for_on_the_disk_that_the_release_goes_to(board, bundles, small_disk, monkeypatch, capsys):
    asked = cli._parser().parse_args(["prepare", "--system", *board.command("prepare")[5:], *bundles[0].words])
    assert cli._place(asked).root == Path(SYSTEM_ROOT)
    place = cli.Place(small_disk / "opt" / "edgepress", board.agent_home, board.incoming, None)
    monkeypatch.setattr(cli, "_place", lambda options: place)
    found = cli.prepare(asked)
    assert not found["same_disk"]
    assert found["root_free_bytes"] <= 1 << 20 < found["incoming_free_bytes"]


def test_a_second_installer_is_refused_while_one_works(board, bundles):
    board.bring(bundles[0])
    (board.root / "install.lock").touch()
    holder = subprocess.Popen(
        ["flock", str(board.root / "install.lock"), "sh", "-c", "echo held; read -r line"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout.readline() == b"held\n"
    said = board.ask("install", *bundles[0].words)
    holder.communicate(b"\n")
    assert said == {"error": "another host is installing an agent there; wait until it has finished"}


def test_roll_back_makes_the_previous_release_the_current_one_and_removes_the_other(board, bundles):
    old, new = bundles
    board.install(old)
    board.install(new)
    board.bring(new)
    assert board.ask("roll-back")["result"] == {"release": old.release}
    assert [path.name for path in (board.root / "releases").iterdir()] == [old.release]
    board.bring(new)
    assert board.ask("roll-back") == {"error": f"{board.root} has no release to go back to"}


class PickyService:
    """A service manager under which one release does not start."""

    def __init__(self, releases: Releases, refused: str) -> None:
        self.releases, self.refused = releases, refused
        self.put_for, self.started = [], []

    def put(self, changes, release):
        self.put_for.append(release.name)
        return changes

    def restart(self, changes):
        if self.releases.current == self.refused:
            raise AgentError("systemctl restart edgepress-agent.service: it failed")
        self.started.append(self.releases.current)


def test_a_release_that_its_service_does_not_start_gives_way_to_the_one_before(board, bundles, monkeypatch):
    old, new = bundles
    board.install(old)
    board.bring(new)
    service = PickyService(board.releases, new.release)
    place = cli.Place(board.root, board.agent_home, board.incoming, service)
    monkeypatch.setattr(cli, "_place", lambda options: place)
    asked = cli._parser().parse_args([*board.command("install")[4:], *new.words])
    with pytest.raises(AgentError) as failed:
        asked.run(asked)
    said = "systemctl restart edgepress-agent.service: it failed"
    assert str(failed.value) == f"{said}; went back to release {old.release}"
    assert (board.releases.current, service.started) == (old.release, [old.release])
    # What starts it is that of its own again, too.
    assert service.put_for == [new.release, old.release]
    assert not board.incoming.exists()


def test_remove_leaves_an_empty_home(board, bundles):
    board.install(bundles[0])
    board.install(bundles[1])
    (board.agent_home / "jobs").mkdir(parents=True)
    board.bring(bundles[0])
    removed = board.ask("remove")["result"]["removed"]
    assert str(board.releases.folder(bundles[1].release)) in removed
    assert str(board.agent_home) in removed
    assert list(board.home.iterdir()) == []


def test_remove_touches_nothing_where_nothing_was_installed(board, bundles):
    """An agent that somebody has installed in another way has the same home."""
    blobs = board.agent_home / "blobs"
    blobs.mkdir(parents=True)
    board.bring(bundles[0])
    assert board.ask("remove")["result"] == {"removed": []}
    assert blobs.is_dir()
    assert not board.root.exists()


def test_remove_leaves_what_is_not_its_own(board, bundles):
    board.install(bundles[0])
    kept = board.root / "agent" / "of-this-host"
    kept.mkdir(parents=True)
    board.bring(bundles[0])
    board.ask("remove")
    assert sorted(board.root.rglob("*")) == [kept.parent, kept]


def test_remove_leaves_what_else_is_in_the_folder_that_was_given_to_the_agent(board, bundles):
    """As when "home" of the device's file is the top of a disk with other things on it."""
    board.install(bundles[0])
    for folder in ("blobs", "jobs", "photos"):
        (board.agent_home / folder).mkdir(parents=True)
    (board.agent_home / "agent.lock").touch()
    board.bring(bundles[0])
    removed = board.ask("remove")["result"]["removed"]
    assert str(board.agent_home) not in removed
    assert str(board.agent_home / "blobs") in removed
    assert [path.name for path in board.agent_home.iterdir()] == ["photos"]


def test_remove_loses_results_that_no_host_has_fetched_only_when_told_to(board, bundles):
    """Whoever asks may have no agent to ask: one that does not start, or of another protocol."""
    board.install(bundles[0])
    (board.agent_home / "jobs" / "job-1").mkdir(parents=True)
    board.bring(bundles[0])
    assert "results that no host has fetched: job-1; " in board.ask("remove")["error"]
    assert (board.agent_home / "jobs" / "job-1").is_dir()
    assert board.releases.current == bundles[0].release
    assert "result" in board.ask("remove", "--discard")
    assert list(board.home.iterdir()) == []


def test_remove_knows_every_home_that_the_agent_had(board, bundles):
    board.install(bundles[0])
    homes = [board.move("disk1"), board.move("disk2"), board.agent_home]
    for home in homes:
        board.agent_home = home
        board.install(bundles[0])
        (home / "jobs" / home.name).mkdir(parents=True)
    board.bring(bundles[0])
    assert "no host has fetched: disk1, disk2, edgepress-agent; " in board.ask("remove")["error"]
    assert set(map(str, homes)) <= set(board.ask("remove", "--discard")["result"]["removed"])
    assert list(board.home.iterdir()) == []


def test_a_home_that_cannot_be_had_changes_nothing(board, bundles):
    old, new = bundles
    board.install(old)
    before = board.move("disk")
    board.agent_home.mkdir()
    (board.agent_home / "blobs").touch()
    assert board.install(new)["error"] == f"{board.agent_home} cannot be the agent's home: File exists"
    assert board.releases.current == old.release
    assert json.loads((board.root / "service.json").read_text())["homes"] == [str(before)]


def test_an_agent_that_serves_an_earlier_home_is_looked_at_and_ended(board, bundles):
    board.install(bundles[0])
    command = [sys.executable, "-m", "device_agent", "serve", "--home", str(board.agent_home), *NULL_ONLY]
    daemon = subprocess.Popen(command, cwd=AGENT_FOLDER.parent, stderr=subprocess.DEVNULL)
    wait_for(socket_path(board.agent_home).exists)
    before = board.move("disk")
    with connect(before) as connected, connected.makefile("rb") as stream:
        stream.readline()
        params = {"holder": "ana@laptop", "ttl_s": 60}
        connected.sendall(encode({"jsonrpc": "2.0", "id": 1, "method": "lease.acquire", "params": params}))
        assert "result" in decode(stream.readline())
    board.bring(bundles[1])
    assert "in use: ana@laptop has leased it" in board.ask("install", *bundles[1].words)["error"]
    assert "result" in board.ask("install", "--holder", "ana@laptop", *bundles[1].words)
    assert daemon.wait(20) == 0


def test_after_a_kill_at_any_instant_the_old_or_the_new_release_is_whole_and_the_next_run_succeeds(board, tmp_path):
    old = small_bundle(tmp_path, "0", extra=40)
    began = time.monotonic()
    board.install(old)
    took_s = time.monotonic() - began
    chance, ends = random.Random(5), []
    for version in range(1, 1 + KILLS):
        # Every third brings an environment of its own.
        new = small_bundle(tmp_path, str(version), extra=40, packages=str(version // 3))
        board.bring(new)
        process = board.start("install", *new.words)
        time.sleep(chance.uniform(0, took_s))
        process.kill()
        process.communicate()
        current = board.releases.current
        assert current in (old.release, new.release)
        ends.append(current == old.release)
        assert board.is_whole(old if ends[-1] else new)
        # What has a release's name is whole, whether it runs or not.
        assert board.is_whole(old)
        assert not board.releases.folder(new.release).is_dir() or board.is_whole(new)
        assert board.install(new)["result"]["release"] == new.release
        assert board.is_whole(new)
        assert [path.name for path in board.root.rglob(".*")] == []
        old = new
    # Some of the kills came before the switch, or they have shown nothing.
    assert any(ends)


def test_after_a_kill_while_all_is_removed_no_part_of_a_release_has_a_name(board, bundles):
    old, new = bundles
    board.install(old)
    board.bring(new)
    began = time.monotonic()
    board.ask("remove")
    took_s = time.monotonic() - began
    chance = random.Random(6)
    for _ in range(4):
        board.install(old)
        board.bring(new)
        process = board.start("remove")
        time.sleep(chance.uniform(0, took_s))
        process.kill()
        process.communicate()
        if board.releases.folder(old.release).is_dir():
            assert board.is_whole(old)
        board.bring(new)
        board.ask("remove")
        assert list(board.home.iterdir()) == []


def test_a_host_that_is_gone_does_not_stop_what_has_begun(board, bundles):
    board.bring(bundles[0])
    process = board.start("install", *bundles[0].words)
    process.stdout.close()
    assert process.wait(60) == 0
    assert board.releases.current == bundles[0].release
    assert os.path.lexists(board.root / "current")
