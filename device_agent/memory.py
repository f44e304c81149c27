"""How much memory this process has had."""

from __future__ import annotations

from pathlib import Path


def peak_rss_bytes() -> int:
    """Return the largest resident set this process has had: VmHWM of ``/proc/self/status``.

    Not ``getrusage``: on Linux its maximum survives an exec, and the daemon's would be in it."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0
