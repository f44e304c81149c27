"""What an idle agent costs its board: resident memory, start-up, and CPU time over a minute."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from local_agent import local_agent

MOST_RSS_BYTES = 20_000_000
# The clock of /proc/self/stat ticks a hundred times a second: one tick is the least that can be seen.
MOST_CPU_S = 0.0


def main() -> int:
    """Print the three figures; return 1 when one is above its limit."""
    seconds = _arguments().seconds
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        home = Path(name) / "home"
        begin = time.monotonic()
        with local_agent(home) as client:
            assert client.hello
            started_s = time.monotonic() - begin
            process = int((home / "agent.lock").read_text())
            # Connected, as while a host pushes or waits: the worst of idling.
            before_s = _cpu_s(process)
            time.sleep(seconds)
            spent_s, rss_bytes = _cpu_s(process) - before_s, _rss_bytes(process)
    print(f"start-up to the first hello, with both runtimes asked for their versions: {started_s:.2f} s")
    print(f"idle resident set: {rss_bytes / 1e6:.1f} MB; limit {MOST_RSS_BYTES / 1e6:.0f} MB")
    print(f"CPU time over {seconds} s, one host connected: {spent_s:.2f} s; limit {MOST_CPU_S:.2f} s")
    return int(rss_bytes > MOST_RSS_BYTES or spent_s > MOST_CPU_S)


def _cpu_s(process: int) -> float:
    # After the name in parentheses, which may hold blanks: fields 14 and 15 of proc(5), user and system time.
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _rss_bytes(process: int) -> int:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
