"""Power cuts at random instants, over twenty: in an installation, as its link is switched, in a push, in a job.

QEMU is killed, so what the board has not flushed to its disk may be gone. After each boot the agent is to come up by
itself, every blob to be what its name says, no job to be lost, and the old or the new release to be there, whole.
"""

from __future__ import annotations

import random
import re
import time
from dataclasses import dataclass

import pytest
from board_experiments import write_fashion_mnist, write_subset
from emulated_pi import NAME, PROVISION, EmulatedPi, changed_tree

pytestmark = [pytest.mark.board, pytest.mark.tensorflow, pytest.mark.timeout(4 * 3600)]

ONE = {"float32": []}
INSTALLING, SWITCHING, PUSHING, MEASURING = range(6), range(4), range(5), range(5)
USER_ROOT = "/home/pi/.local/share/edgepress"
SYSTEM_ROOT = "/opt/edgepress"
# Between what the host is told of the switch and the agent's answer.
SWITCH_S = 6.0
# What pushes of 3 MB and 8 MB and a job take here, but for the ends: the first is asked for before anything is sent.
PUSH_S, LONG_PUSH_S, JOB_S = 4.0, 10.0, 30.0
# Linux keeps what is written in memory for half a minute, longer than a push takes. With these a second is enough.
WRITES_SOON = ("vm.dirty_expire_centisecs=20", "vm.dirty_writeback_centisecs=20")
COMMITS_SOON = ("mount", "-o", "remount,commit=1", "/")
# So long a command whose board is gone is left alone; one that waits for longer, as for a job, is ended by Ctrl-C.
GIVES_UP_S = 30.0


@pytest.fixture(scope="module")
def chance(pi):
    """What chooses the instants; its seed is in the log."""
    seed = random.randrange(1 << 32)
    pi.log(f"power cuts: seed {seed}")
    return random.Random(seed)


@dataclass(frozen=True)
class Installed:
    """The board with an agent, how long an upgrade of it takes from its push on, and what no cut may take from it."""

    pi: EmulatedPi
    took_s: float
    job: str
    blobs: int


@pytest.fixture(scope="module")
def installed(bare, tmp_path_factory):
    """An agent that was upgraded once, with the blobs of a job that nobody has fetched."""
    bare.reset()
    bare.edgepress(*PROVISION)
    upgrade = bare.start(*PROVISION, tree=changed_tree(tmp_path_factory.mktemp("upgrade") / "tree", "9.0.0"))
    upgrade.await_line("push")
    begin = time.monotonic()
    code, printed = upgrade.finish()
    assert code == 0, printed
    took_s = time.monotonic() - begin
    folder = tmp_path_factory.mktemp("kept")
    path = write_fashion_mnist(folder, "litert", write_subset(folder, scored=20, trained=2000), variants=ONE)
    run = bare.start("run", str(path), "--output", str(folder / "runs"))
    run.await_line("measure: started")
    assert run.interrupt() == 130
    [job] = bare.jobs()
    bare.edgepress("cancel", job, "--device", NAME)
    blobs = bare.blobs()
    assert blobs["blobs"] >= 3
    return Installed(bare, took_s, job, blobs["blobs"])


@pytest.fixture
def base(installed):
    """The same, on: the test before may have left the board off."""
    installed.pi.up()
    return installed


@dataclass(frozen=True)
class Cut:
    """A power cut as the log tells it, and what came of the host's command: its exit code and what it printed."""

    told: str
    code: int
    printed: str


class Cutter:
    """Cuts a command of the host's short, with the board's power, and boots the board again."""

    def __init__(self, pi, chance: random.Random) -> None:
        self.pi = pi
        self.hits: dict[str, list[bool]] = {}
        self._chance = chance

    def cut(
        self, what: str, *words: str, after: str, within_s: float, until: str = "", waits: bool = False, **more
    ) -> Cut:
        """Start a command, cut at a random instant within so many seconds after a line, and boot the board.

        The cut is a hit when the command was still under way then, and had not printed another line that begins with
        ``until``, where that is given. With ``waits`` the board is booted while the command tries to reach it again;
        otherwise that has ended before.
        """
        running = self.pi.start(*words, **more)
        try:
            running.await_line(after)
            instant_s = self._chance.uniform(0, within_s)
            hit = running.goes_on_for(instant_s) and not (until and running.said(until, but=after))
            self.pi.board.cut_power()
            self.hits.setdefault(what.rstrip("0123456789 "), []).append(hit)
            if not waits and running.goes_on_for(GIVES_UP_S):
                running.interrupt()
            boot_s = self.pi.up()
            code, printed = running.finish()
        finally:
            running.kill()
        assert "Traceback" not in printed, printed
        when = "was under way" if hit else "was over already"
        told = f"{what}: cut {instant_s:.2f} s after {after!r}, when that {when}; the command ended with {code}"
        return Cut(f"{told}; booted in {boot_s:.0f} s", code, printed)


@pytest.fixture(scope="module")
def cutter(pi, chance):
    return Cutter(pi, chance)


def assert_whole(base: Installed, told: str) -> dict[str, str]:
    """See that the agent is up by itself, and no blob or job wrong or gone; return the releases and their digests."""
    pi = base.pi
    pi.await_agent()
    blobs, jobs, found = pi.blobs(), pi.jobs(), pi.releases(USER_ROOT)
    pi.log(
        f"{told}; agent up by itself, release {found['current']} of {len(found['releases'])}, "
        f"{blobs['blobs']} blobs, {len(blobs['wrong'])} wrong, {blobs['begun_bytes']} bytes of others, "
        f"jobs {sorted(jobs.values())}"
    )
    assert blobs["wrong"] == [] and blobs["blobs"] >= base.blobs
    assert base.job in jobs
    assert not [state for state in jobs.values() if state.startswith("broken")]
    assert found["current"] in found["releases"]
    return dict(found["releases"])


def first_found(pi, found: dict, scope: str) -> str:
    """Return what is there after a cut in a first installation, in words."""
    unit = pi.ssh("systemctl", scope, "is-active", "edgepress-agent", ok=False).strip()
    return f"current release {found['current']}, whole ones {sorted(found['releases'])}, the agent's unit {unit}"


def test_the_first_installation_is_cut_and_goes_on(bare, cutter):
    bare.reset()
    cut = cutter.cut("first installation", *PROVISION, after="unpack", within_s=30.0)
    found = bare.releases(USER_ROOT)
    bare.log("; ".join((cut.told, first_found(bare, found, "--user"))))
    bare.edgepress(*PROVISION)
    finished = bare.releases(USER_ROOT)
    assert {name: digest for name, digest in found["releases"].items() if finished["releases"][name] != digest} == {}


def test_the_first_push_of_an_agent_and_its_runtime_is_cut_and_goes_on(bare, cutter):
    bare.reset()
    cut = cutter.cut("first push", *PROVISION, after="push", until="unpack", within_s=4.0)
    bare.log(f"{cut.told}; no release {bare.releases(USER_ROOT)['releases']}")
    printed = bare.edgepress(*PROVISION)
    bare.await_agent()
    assert bare.releases(USER_ROOT)["current"], printed


def test_the_first_installation_for_the_system_is_cut_and_goes_on_or_is_removed(bare, cutter):
    bare.reset()
    before = bare.leftovers()
    words = (*PROVISION, "--system")
    cut = cutter.cut("first installation for the system", *words, after="unpack", within_s=30.0)
    found = bare.releases(SYSTEM_ROOT)
    bare.log("; ".join((cut.told, first_found(bare, found, "--system"))))
    bare.edgepress(*words)
    finished = bare.releases(SYSTEM_ROOT)
    assert {name: digest for name, digest in found["releases"].items() if finished["releases"][name] != digest} == {}
    bare.await_agent()
    bare.edgepress("device", "unprovision", NAME)
    assert bare.leftovers() - before == set()


@pytest.mark.parametrize("number", INSTALLING)
def test_an_upgrade_is_cut_and_the_old_or_the_new_release_is_there_whole(base, cutter, tmp_path, number):
    old = base.pi.releases(USER_ROOT)
    tree = changed_tree(tmp_path / "tree", f"9.1.{number}")
    cut = cutter.cut(f"upgrade {number + 1}", *PROVISION, after="push", within_s=base.took_s, tree=tree)
    upgraded_to_whole(base.pi, old, assert_whole(base, cut.told), tree)


@pytest.mark.parametrize("number", SWITCHING)
def test_the_switch_of_the_link_is_cut_and_it_leads_to_a_whole_release(base, cutter, tmp_path, number):
    old = base.pi.releases(USER_ROOT)
    tree = changed_tree(tmp_path / "tree", f"9.2.{number}")
    cut = cutter.cut(f"switch {number + 1}", *PROVISION, after="start", within_s=SWITCH_S, tree=tree)
    upgraded_to_whole(base.pi, old, assert_whole(base, cut.told), tree)


def upgraded_to_whole(pi, old: dict, cut: dict[str, str], tree) -> None:
    """See that what was there after the cut is what a finished upgrade leaves, or what was there before."""
    pi.edgepress(*PROVISION, tree=tree)
    finished = pi.releases(USER_ROOT)
    known = {**old["releases"], **finished["releases"]}
    assert {name: digest for name, digest in cut.items() if known.get(name) != digest} == {}
    assert finished["current"] != old["current"]


@pytest.mark.parametrize("number", PUSHING)
def test_a_push_is_cut_and_goes_on_and_no_blob_is_wrong(base, cutter, tmp_path, number):
    pi, scored, within_s = base.pi, 4000 + number, PUSH_S
    if number % 2:
        # Otherwise nothing of what had come is there after the boot.
        scored, within_s = 10000 - number, LONG_PUSH_S
        for words in (("sysctl", "--quiet", *WRITES_SOON), COMMITS_SOON):
            pi.ssh("sudo", "-n", *words)
    data = write_subset(tmp_path, scored=scored, trained=2000)
    path = write_fashion_mnist(tmp_path, "litert", data, variants=ONE, name=f"push{number}")
    words = ("run", str(path), "--wait", "--output", str(tmp_path / "runs"))
    cut = cutter.cut(f"push {number + 1}", *words, after="push: started", until="push: ", within_s=within_s)
    assert_whole(base, cut.told)
    begun = pi.blobs()
    again = pi.start(*words)
    again.await_line("measure: started")
    done = pi.blobs()
    assert done["wrong"] == []
    # To score so many images takes long here, and a job that stays would keep the board from the next test.
    assert again.interrupt() == 130
    sent = sum(int(found) for line in again.lines for found in re.findall(r"^push: (\d+) bytes sent", line))
    pi.log(f"push {number + 1}: {begun['begun_bytes']} bytes had come, {sent} came after the boot")
    assert sent <= done["bytes"] - begun["bytes"] - begun["begun_bytes"]
    for job in pi.jobs():
        pi.edgepress("cancel", job, "--device", NAME)


@pytest.mark.parametrize("number", MEASURING)
def test_a_job_is_cut_and_is_not_lost(base, cutter, tmp_path, number):
    data = write_subset(tmp_path, scored=20, trained=2000)
    path = write_fashion_mnist(tmp_path, "litert", data, variants=ONE, name=f"job{number}", seed=number)
    words = ("run", str(path), "--wait", "--output", str(tmp_path / "runs"))
    cut = cutter.cut(
        f"job {number + 1}", *words, after="measure: started", until="measure: done", within_s=JOB_S, waits=True
    )
    assert_whole(base, cut.told)
    printed = cut.printed
    if cut.code:
        # The job was done and its result about to be fetched, for which nobody waits so long.
        assert "measure: done" in printed, printed
        printed = base.pi.edgepress(*words)
    assert "float32 may ship" in printed


def test_some_cuts_of_each_kind_came_while_it_was_under_way(cutter):
    counted = [f"{what} {sum(hits)} of {len(hits)}" for what, hits in cutter.hits.items()]
    cutter.pi.log(f"cuts that hit: {', '.join(counted)}")
    assert [what for what, hits in cutter.hits.items() if len(hits) > 1 and not any(hits)] == []
    every = [hit for hits in cutter.hits.values() for hit in hits]
    assert len(every) >= 20
    assert 2 * sum(every) >= len(every), cutter.hits
