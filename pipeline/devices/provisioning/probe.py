"""What a board says of itself before there is an agent on it: asked over SSH, by one fixed shell script."""

from __future__ import annotations

import importlib.resources
import json
import re
from dataclasses import dataclass, field

from device_agent.installing.services import Changes
from device_agent.layout import check_id
from device_agent.protocol import ProtocolError, check_identifier, from_json
from pipeline.devices.agent_stream import printable
from pipeline.devices.ssh import SshTransport
from pipeline.devices.ssh_command import Patience
from pipeline.errors import DeviceError

# Each Python of the board is started once: seconds on a slow one.
PATIENCE = Patience(silence_s=120.0, total_s=600.0)

# What becomes a word of a command, or a part of a path there.
_PATH = re.compile(r"/[A-Za-z0-9_./+@~-]{1,400}")
_PYTHON = re.compile(
    r"(?P<version>\d{1,4}\.\d{1,4}\.\d{1,4}) (?P<kind>[A-Za-z0-9_]+) (?P<bits>32|64) (?P<libc>\S+) (?P<numpy>\S+) "
    r"(?P<missing>[A-Za-z0-9_,-]{1,999}) (?P<path>/.+)"
)
_MACHINES = {
    ("aarch64", 64): "aarch64",
    ("aarch64", 32): "armv7l",  # a 32-bit system under a 64-bit kernel, as on many a Raspberry Pi
    ("armv8l", 32): "armv7l",
    ("armv7l", 32): "armv7l",
    ("x86_64", 64): "x86_64",
}

Version = tuple[int, ...]


@dataclass(frozen=True)
class BoardPython:
    """A Python of the board; ``glibc`` and ``numpy`` are None where it has none.

    ``kind`` is its implementation with its ABI flags, "cpython" for an ordinary one; ``missing`` the modules of the
    standard library that the agent needs and it lacks.
    """

    path: str
    version: Version
    kind: str
    bits: int
    glibc: Version | None
    numpy: Version | None
    missing: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """How messages name it."""
        return f"Python {'.'.join(map(str, self.version))} ({self.path})"


@dataclass(frozen=True)
class Installation:
    """A release that is there already; ``home`` is where its agent keeps its files, empty where nobody says."""

    release: str
    runtimes: tuple[str, ...]
    home: str = ""


@dataclass(frozen=True)
class Probe:
    """A board; texts are empty where it does not say.

    ``sudo`` is "root", "yes" (without a password), "password" or "no". ``system_begun``: something of an agent for the
    whole system is there, be it only in part; ``is_cut``: the last installation has not come to its end. ``pythons``
    are in the order of PATH. ``user_free_kib`` and ``system_free_kib`` are what is free on the disks that an agent for
    the user and for the whole system would lie on, None where the board does not say.
    """

    machine: str
    os: str
    model: str
    user: str
    home: str
    sudo: str
    systemd: str
    user_installation: Installation | None = None
    system_installation: Installation | None = None
    system_begun: bool = False
    is_cut: bool = False
    pythons: tuple[BoardPython, ...] = field(default=())
    user_free_kib: int | None = None
    system_free_kib: int | None = None

    def architecture(self, python: BoardPython) -> str:
        """Return the architecture that wheels for ``python`` are named after: its own, not the kernel's."""
        return _MACHINES.get((self.machine, python.bits), f"{self.machine} ({python.bits} bits)")


def probe_board(transport: SshTransport, device: str) -> Probe:
    """Ask the board behind ``transport``.

    Raises:
        DeviceError: if it cannot be reached, has no POSIX shell, or its answer makes no sense.
    """
    script = importlib.resources.files("pipeline.devices.provisioning").joinpath("probe.sh").read_bytes()
    answer = transport.run(("/bin/sh", "-s"), script, PATIENCE)
    return parse_probe(answer.stdout.decode("utf-8", "replace"), device)


def parse_probe(text: str, device: str) -> Probe:
    """Return what the script has printed, checked: it becomes words of commands.

    Raises:
        DeviceError: if it is not whole, or its home cannot be such a word.
    """
    pairs = [line.split("=", 1) for line in text.splitlines() if "=" in line]
    values: dict[str, list[str]] = {}
    for key, value in pairs:
        values.setdefault(key, []).append(value.strip())
    if "probe" not in values or "done" not in values:
        raise DeviceError(f'{device} cannot be probed: its shell said "{printable(text, 200)}"')

    def one(key: str) -> str:
        return printable(values.get(key, [""])[0], 200)

    home = one("home")
    if not _PATH.fullmatch(home) or ".." in home.split("/"):
        raise DeviceError(f'{device}: home of {one("user")} is "{home}"; expected letters, digits and _./+@~- only')
    return Probe(
        machine=one("machine"),
        os=one("os"),
        model=one("model"),
        user=one("user"),
        home=home.rstrip("/"),
        sudo=one("sudo"),
        systemd=one("systemd"),
        user_installation=_installation(values, "user"),
        system_installation=_installation(values, "system"),
        system_begun=one("system_begun") == "yes",
        is_cut=one("incoming") == "yes",
        pythons=_pythons(values.get("python", [])),
        user_free_kib=_number(one("user_free_kib")),
        system_free_kib=_number(one("system_free_kib")),
    )


def _number(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[0-9]{1,15}", text) else None


def version_of(text: str) -> Version | None:
    """Return a version such as "2.36" or "1.24.2+deb" as numbers, as far as it has them; None of anything else."""
    found = re.match(r"\d{1,9}(\.\d{1,9}){0,9}", text)
    return tuple(int(part) for part in found[0].split(".")) if found else None


def _pythons(lines: list[str]) -> tuple[BoardPython, ...]:
    """Return the Pythons that can be named in a command, each once."""
    found: dict[str, BoardPython] = {}
    for line in lines:
        match = _PYTHON.fullmatch(line)
        if match and _PATH.fullmatch(match["path"]):
            found.setdefault(match["path"], _python(match))
    return tuple(found.values())


def _python(match: re.Match[str]) -> BoardPython:
    missing = () if match["missing"] == "-" else tuple(match["missing"].split(","))
    return BoardPython(
        path=match["path"],
        version=tuple(int(part) for part in match["version"].split(".")),
        kind=match["kind"],
        bits=int(match["bits"]),
        glibc=version_of(match["libc"]),
        numpy=version_of(match["numpy"]),
        missing=missing,
    )


def _installation(values: dict[str, list[str]], scope: str) -> Installation | None:
    try:
        release = check_id("release", values.get(f"{scope}_release", [""])[0])
        runtimes = tuple(check_identifier("runtime", runtime) for runtime in values.get(f"{scope}_runtime", []))
    except ProtocolError:
        return None
    return Installation(release, runtimes, _agent_home(values.get(f"{scope}_service", [""])[0]))


def _agent_home(text: str) -> str:
    """Return the present home that an installation has written down; empty when that makes no sense."""
    try:
        homes = from_json(Changes, json.loads(text)).homes
    except (ValueError, RecursionError):
        return ""
    return homes[-1] if homes and homes[-1].startswith("/") else ""
