"""The process that keeps the board busiest beside this one, by what each has computed between two looks."""

from __future__ import annotations

import os
from pathlib import Path

from device_agent.protocol import BusyProcess
from device_agent.sensors.files import as_integer, as_name, read_text

# proc_pid_stat(5), from the state on, which follows the name: utime and stime.
_TIMES = slice(11, 13)
_SYSTEMS_SERVICES = "0::/system.slice/"


def cpu_times_s(root: Path = Path("/")) -> dict[int, float]:
    """Return the CPU time in seconds of every process that may be seen, but for this one."""
    per_second = os.sysconf("SC_CLK_TCK")
    found: dict[int, float] = {}
    for path in (root / "proc").glob("[0-9]*/stat"):
        pid, text = as_integer(path.parent.name), read_text(path) or ""
        # A name may have spaces and brackets in it.
        jiffies = [as_integer(word) or 0 for word in text.rpartition(")")[2].split()[_TIMES]]
        if pid and pid != os.getpid():
            found[pid] = sum(jiffies) / per_second
    return found


def busiest_between(
    before: dict[int, float], after: dict[int, float], duration_s: float, root: Path = Path("/")
) -> BusyProcess | None:
    """Return the process that has computed most in between; None when none has, or it has ended."""
    used_s = {pid: after[pid] - before.get(pid, 0.0) for pid in after}
    pid = max(used_s, key=lambda pid: used_s[pid], default=0)
    name = as_name(read_text(root / f"proc/{pid}/comm"))
    if not name or used_s[pid] <= 0:
        return None
    return BusyProcess(pid, name, used_s[pid] / duration_s, _service(root / f"proc/{pid}/cgroup"))


def _service(cgroup: Path) -> str | None:
    """Return the unit of the system's that a process belongs to, by its control group."""
    for line in (read_text(cgroup) or "").splitlines():
        unit = line.rpartition("/")[2]
        if line.startswith(_SYSTEMS_SERVICES) and unit.endswith(".service"):
            return as_name(unit)
    return None
