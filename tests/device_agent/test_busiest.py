"""Which process keeps a board busiest, and which unit it belongs to."""

import os
import subprocess
import sys

import pytest

from device_agent.protocol import BusyProcess
from device_agent.sensors.busiest import busiest_between, cpu_times_s
from device_agent.sensors.state import read_device_state

PER_S = os.sysconf("SC_CLK_TCK")


@pytest.fixture
def run(tmp_path):
    """A function that lets a process have computed for so many seconds."""

    def run(pid: int, name: str, user_s: int, system_s: int = 0, cgroup: str = "0::/user.slice"):
        folder = tmp_path / "proc" / str(pid)
        folder.mkdir(parents=True, exist_ok=True)
        zeros = " ".join("0" * 10)
        (folder / "stat").write_text(f"{pid} ({name}) S {zeros} {user_s * PER_S} {system_s * PER_S} 0 0 20\n")
        (folder / "comm").write_text(f"{name}\n")
        (folder / "cgroup").write_text(f"{cgroup}\n")

    return run


def test_the_busiest_is_the_one_that_has_computed_most_between_two_looks(run, tmp_path):
    run(8, "old", 5000)
    run(9, "odd) name 1 2", 10, 3)
    run(os.getpid(), "this one", 0)
    before = cpu_times_s(tmp_path)
    run(8, "old", 5001)
    run(9, "odd) name 1 2", 11, 5)
    run(os.getpid(), "this one", 100)
    found = busiest_between(before, cpu_times_s(tmp_path), 2.0, tmp_path)
    assert found == BusyProcess(9, "odd) name 1 2", 1.5)


@pytest.mark.parametrize(
    ("cgroup", "unit"),
    [
        ("0::/system.slice/nginx.service", "nginx.service"),
        ("0::/system.slice/system-a.slice/a@b.service", "a@b.service"),
        ("0::/system.slice/docker-12.scope", None),
        # Of somebody's own systemd, which "sudo systemctl" does not reach.
        ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/a.service", None),
        ("1:name=systemd:/x", None),
    ],
)
def test_the_unit_is_one_of_the_systems(run, tmp_path, cgroup, unit):
    run(9, "busy", 1, cgroup=cgroup)
    assert busiest_between({9: 0.0}, cpu_times_s(tmp_path), 1.0, tmp_path) == BusyProcess(9, "busy", 1.0, unit)


def test_where_nobody_has_computed_or_can_be_seen_there_is_no_busiest(run, tmp_path):
    assert busiest_between({}, cpu_times_s(tmp_path), 1.0, tmp_path) is None
    run(9, "idle", 1)
    times_s = cpu_times_s(tmp_path)
    assert busiest_between(times_s, times_s, 1.0, tmp_path) is None


def test_on_a_real_machine_it_is_found():
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        try:
            found = read_device_state().busiest
        finally:
            busy.kill()
    assert found is not None
    assert found.cpus > 0
