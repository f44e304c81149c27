"""A run on 1, 8 and 64 boards: each a real agent with the stand-in runtime, all behind a real sshd on loopback.

All boards are this one machine, whose cores they share: what they use, 64 real boards would use on their own. So the
wall time is judged twice:

* as it is: 64 boards may take at most 2 times as long as 1, or as the processor time of all agents and servers divided
  by the cores, whichever is more;
* as it would be with real boards: the time of 1, and for each further board all of the host's own processor time, one
  after another, as if nothing of it ran side by side. That may be at most 2 times the time of 1.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

MOST_TIMES = 2.0
MOST_MIB_PER_BOARD = 4.0


def main() -> int:
    """Print the figures for each number of boards; return 1 when a limit is missed."""
    asked = _arguments()
    found = {number: _measured(number, asked.block_s) for number in asked.boards}
    for number, run in found.items():
        host, agent, sshd = (run[key] / number for key in ("host_s", "agents_s", "sshd_s"))
        print(
            f"{number:3} boards: {run['wall_s']:6.1f} s; processor seconds a board: host {host:.2f}, "
            f"agent {agent:.2f}, sshd {sshd:.2f}; host's memory {run['rss_mib']:.0f} MiB"
        )
    least, most = min(found), max(found)
    return int(not all(_verdicts(found[least], found[most], most - least)))


def _verdicts(one: dict[str, float], many: dict[str, float], more: int) -> list[bool]:
    cores = os.cpu_count() or 1
    bound_s = max(one["wall_s"], (many["agents_s"] + many["sshd_s"] + many["host_s"]) / cores)
    as_it_is = many["wall_s"] / bound_s
    alone_s = one["wall_s"] + many["host_s"] - one["host_s"]
    on_boards = alone_s / one["wall_s"]
    memory = (many["rss_mib"] - one["rss_mib"]) / more
    print(
        f"as it is, on {cores} cores: {many['wall_s'] / one['wall_s']:.1f} times the time of one; "
        f"{as_it_is:.2f} times what one takes, or what {cores} cores take for all; limit {MOST_TIMES}"
    )
    print(f"with boards of their own: {on_boards:.2f} times the time of one at most; limit {MOST_TIMES}")
    print(f"host's memory for each further board: {memory:.2f} MiB; limit {MOST_MIB_PER_BOARD}")
    return [as_it_is <= MOST_TIMES, on_boards <= MOST_TIMES, memory <= MOST_MIB_PER_BOARD]


def _measured(boards: int, block_s: float) -> dict[str, float]:
    """Do the run in a process of its own, so that its memory and processor time are those of the host alone."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        command = [sys.executable, str(Path(__file__).with_name("fleet_lab.py")), folder, str(boards), str(block_s)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"the run on {boards} boards failed")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--boards", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--block-s", type=float, default=2.0, help="seconds of timing in each block")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
