"""Pushing 100 MB to an agent behind a real sshd: against scp, again, cut in the middle, and over a slow line with loss.

Everything on this machine. What is timed of a push is all of it: it connects and leases the board, it is asked what is
there already, the content is sent, its SHA-256 taken there, and all is synced. Of scp it is the whole command, which
connects too, and neither looks at what has arrived nor syncs it. How much of a push was connecting is told beside it: a
run has done that since it began, and does not wait for it again.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from push_lab import Blob, Lab, Line, lab_here, noise, weights

from pipeline.devices.sftp import LARGE_CHUNK_BYTES

MOST_TIMES_SCP = 1.2
# What SFTP carries in one write.
BLOCK_BYTES = LARGE_CHUNK_BYTES
SLOW_BYTES_PER_S = 1_000_000
LOSS_PERCENT = 1


@dataclass(frozen=True)
class Pushed:
    """How long a push took to connect and from then on, and how many bytes of content were sent."""

    connect_s: float
    sending_s: float
    sent: int

    @property
    def took_s(self) -> float:
        """All of it, as of scp."""
        return self.connect_s + self.sending_s


def main() -> int:
    """Print what each push took and sent; return 1 when a limit is missed."""
    asked = _arguments()
    with lab_here() as lab:
        with lab.plain_line() as line:
            within = [against_scp(lab, line, asked.mb, asked.rounds)]
            within.append(again(lab, line, asked.mb))
            within.append(cut_in_the_middle(lab, line, asked.mb))
        with lab.slow_line(SLOW_BYTES_PER_S, LOSS_PERCENT) as line:
            print(f"\nat {SLOW_BYTES_PER_S / 1e6:g} MB/s, {line.kind}, {asked.slow_mb} MB")
            within += over_a_slow_line(lab, line, asked.slow_mb)
            within.append(again(lab, line, asked.slow_mb))
            within.append(cut_in_the_middle(lab, line, asked.slow_mb))
    return int(not all(within))


def against_scp(lab: Lab, line: Line, mb: int, rounds: int) -> bool:
    """Compare a push with scp, each first in half of the rounds; every round has content that nobody has seen."""
    ours: list[Pushed] = []
    theirs: list[float] = []
    for number in range(rounds):
        blob = lab.blob(noise(mb * 1_000_000))
        runs = [lambda: ours.append(pushed(lab, line, blob)), lambda: theirs.append(copied(lab, line, blob))]  # noqa: B023
        for run in runs if number % 2 else reversed(runs):
            run()
        last = ours[-1]
        print(
            f"round {number + 1}: push {last.took_s:.2f} s ({last.connect_s:.2f} s of them to connect), "
            f"scp {theirs[-1]:.2f} s"
        )
        lab.forget(blob)
    ratio = median_ratio(ours, theirs)
    print(
        f"{mb} MB over loopback, connecting and pushing against scp: median ratio {ratio:.2f}; limit {MOST_TIMES_SCP}"
    )
    return ratio <= MOST_TIMES_SCP


def median_ratio(ours: Sequence[Pushed], theirs: Sequence[float]) -> float:
    """Return the median over the rounds of what a push took, connecting included, against what scp did."""
    return float(np.median([one.took_s / other for one, other in zip(ours, theirs, strict=True)]))


def again(lab: Lab, line: Line, mb: int) -> bool:
    """Push what is there already."""
    blob = lab.blob(noise(mb * 1_000_000))
    pushed(lab, line, blob)
    second = pushed(lab, line, blob)
    lab.forget(blob)
    print(f"a second push of the same: {second.took_s:.2f} s, {second.sent} content bytes; limit 0")
    return second.sent == 0


def cut_in_the_middle(lab: Lab, line: Line, mb: int) -> bool:
    """Cut the line when half of the content has gone over it; the push goes on by itself."""
    size = mb * 1_000_000
    blob = lab.blob(noise(size))
    with lab.cut(line, size // 2) as (cut_line, proxy):
        sent = pushed(lab, cut_line, blob).sent
    lab.forget(blob)
    # What is counted as sent is what the far end has answered for; what was on its way at the cut is not.
    twice = max(0, sent - size)
    print(
        f"{mb} MB, the line cut at half of them: {proxy.cuts} cut, {twice} bytes that had arrived sent again; limit "
        f"one block, {BLOCK_BYTES}; {proxy.there_bytes - size} bytes more than the content went over the line"
    )
    return proxy.cuts == 1 and twice <= BLOCK_BYTES


def over_a_slow_line(lab: Lab, line: Line, mb: int) -> list[bool]:
    """Push what compresses and what does not, each against scp without and with its own compression."""
    within = []
    for name, make in (("noise", noise), ("weights, half of them zero", weights)):
        blob = lab.blob(make(mb * 1_000_000))
        plain_s, packed_s = (copied(lab, line, blob, compress) for compress in (False, True))
        took_s = pushed(lab, line, blob).took_s
        lab.forget(blob)
        best_s = min(plain_s, packed_s)
        print(
            f"{name}: push {took_s:.1f} s, scp {plain_s:.1f} s, scp -C {packed_s:.1f} s; push against the better one: "
            f"{took_s / best_s:.2f}; limit {MOST_TIMES_SCP}",
            flush=True,
        )
        within.append(took_s / best_s <= MOST_TIMES_SCP)
    return within


def pushed(lab: Lab, line: Line, blob: Blob) -> Pushed:
    """Push from a client of its own."""
    with lab.client(line) as client:
        connect_s = timed(lambda: client.acquire("a benchmark"))
        start = time.monotonic()
        sent = client.push([blob], lambda done, total: None)
        return Pushed(connect_s, time.monotonic() - start, sent)


def copied(lab: Lab, line: Line, blob: Blob, compress: bool = False) -> float:
    """Return how long scp takes."""
    return timed(lambda: lab.scp(line, blob.path, compress))


def timed(action: Callable[[], None]) -> float:
    """Return how many seconds ``action`` takes."""
    start = time.monotonic()
    action()
    return time.monotonic() - start


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mb", type=int, default=100)
    parser.add_argument("--slow-mb", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=6)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
