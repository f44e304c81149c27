"""Which runtime runs on a board, in which of its Pythons; or, for each runtime, why it cannot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.devices.provisioning.probe import BoardPython, Probe
from pipeline.devices.provisioning.wheels import Lock, all_locks, find_lock
from pipeline.errors import NoRuntimeFits, UsageError

OLDEST_PYTHON = (3, 9)
# tflite-runtime 2.14 was built against numpy 1; its metadata does not say so.
OLDEST_NUMPY, FIRST_NUMPY_TOO_NEW = (1, 21), (2,)
# The better one first.
RUNTIMES = ("litert", "tflite_runtime")


@dataclass(frozen=True)
class Choice:
    """What is to be installed: the locked wheels of each runtime, and the Python of the board that runs them."""

    python: BoardPython
    machine: str
    locks: tuple[Lock, ...]

    @property
    def runtimes(self) -> tuple[str, ...]:
        """The runtimes by name; the first of them runs the agent itself."""
        return tuple(lock.runtime for lock in self.locks)

    @property
    def board_numpy(self) -> bool:
        """Whether numpy is the board's own, for want of a wheel."""
        return not all(lock.has_numpy for lock in self.locks)


def choose(probe: Probe, device: str, wanted: Sequence[str] = ()) -> Choice:
    """Return the runtimes ``wanted``, or else the better one of those that run there.

    Raises:
        NoRuntimeFits: with the reason for each runtime, when there is no Python for them.
        UsageError: if there is no runtime of that name.
    """
    for runtime in wanted:
        if runtime not in RUNTIMES:
            raise UsageError(f'unknown runtime "{runtime}"; known: {", ".join(RUNTIMES)}')
    # In an order of our own, each once: the same ones asked for in another way are the same release.
    wanted = [runtime for runtime in RUNTIMES if runtime in wanted]
    if not probe.pythons:
        raise NoRuntimeFits(f"{device} has no Python 3; on Debian: sudo apt-get install python3")
    for runtimes in [tuple(wanted)] if wanted else [(runtime,) for runtime in RUNTIMES]:
        for python in probe.pythons:
            if not any(why_not(runtime, python, probe) for runtime in runtimes):
                machine = probe.architecture(python)
                locks = tuple(lock for runtime in runtimes if (lock := find_lock(runtime, python.version, machine)))
                return Choice(python, machine, locks)
    title = f"no Python there runs {' and '.join(wanted)}" if wanted else "no runtime can run there"
    raise NoRuntimeFits(_reasons(probe, f"{device} ({_board(probe)}): {title}", wanted or RUNTIMES))


def why_not(runtime: str, python: BoardPython, probe: Probe) -> str | None:
    """Return why ``runtime`` cannot run in this Python of the board; None when it can."""
    problem = why_not_at_all(python)
    if problem:
        return problem
    lock = find_lock(runtime, python.version, probe.architecture(python))
    if lock is None:
        return f"{python.name} on {probe.architecture(python)} has no wheel; there are some for {_offered(runtime)}"
    if python.glibc is None:
        return f"{python.name} is not built with glibc, for which all wheels are"
    if python.glibc < lock.glibc:
        needed, found = (".".join(map(str, version)) for version in (lock.glibc, python.glibc))
        return f"{lock.title} for {python.name} needs glibc {needed}; the board has {found}"
    return None if lock.has_numpy else _why_not_with(python, probe)


def why_not_at_all(python: BoardPython) -> str | None:
    """Return why the agent itself cannot run in this Python; None when it can."""
    if python.version < OLDEST_PYTHON:
        return f"{python.name} is too old; 3.9 or later is needed"
    if python.kind != "cpython":
        return f"{python.name} is {python.kind}; expected an ordinary cpython"
    if python.missing:
        remedy = "on Debian: sudo apt-get install python3"
        return f"{python.name} lacks {', '.join(python.missing)} of the standard library; {remedy}"
    return None


def _why_not_with(python: BoardPython, probe: Probe) -> str | None:
    """Return why the board's own numpy will not do."""
    where = f"there is no wheel of numpy for {probe.architecture(python)}, and {python.name}"
    if python.numpy is None:
        return f"{where} has none; on Debian: sudo apt-get install python3-numpy"
    if not OLDEST_NUMPY <= python.numpy < FIRST_NUMPY_TOO_NEW:
        found = ".".join(map(str, python.numpy))
        return f"{where} has {found}; one from 1.21 on and below 2 is needed"
    return None


def _offered(runtime: str) -> str:
    machines: dict[str, list[tuple[int, int]]] = {}
    for lock in all_locks():
        if lock.runtime == runtime:
            machines.setdefault(lock.machine, []).append(lock.python)
    ranges = [f"{machine}: {_range(pythons)}" for machine, pythons in sorted(machines.items())]
    return ", ".join(ranges) or "no board"


def _range(pythons: list[tuple[int, int]]) -> str:
    first, last = (".".join(map(str, end)) for end in (min(pythons), max(pythons)))
    return first if first == last else f"{first} to {last}"


def _board(probe: Probe) -> str:
    return probe.model or probe.os or probe.machine


def _reasons(probe: Probe, title: str, runtimes: Sequence[str]) -> str:
    lines = [f"{title}:"]
    for runtime in runtimes:
        problems = dict.fromkeys(why_not(runtime, python, probe) for python in probe.pythons)
        lines += [f"  {runtime}: {problem}" for problem in problems if problem]
    return "\n".join(lines)
