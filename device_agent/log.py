"""The agent's log: lines on stderr, which is ``<home>/agent.log`` when the daemon was started by ``attach``.

Not the ``logging`` module: it costs 0.6 MB of the 20 that an idle daemon may have.
"""

from __future__ import annotations

import sys
import time


def utc_now() -> str:
    """Return the time as ``2026-11-23T20:15:00Z``."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def note(text: str) -> None:
    """Write one line."""
    print(f"{utc_now()} {text}", file=sys.stderr, flush=True)


def bug(text: str) -> None:
    """Write one line and the traceback of the exception being handled."""
    import traceback

    note(f"{text}\n{traceback.format_exc().rstrip()}")
