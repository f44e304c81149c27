"""The installer's commands, one process each: ``prepare``, ``install``, ``restart``, ``roll-back`` and ``remove``.

A command prints JSON, one object a line: ``{"stage": …}`` as it goes on, at last ``{"result": …}`` or ``{"error": …}``.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from device_agent.checks import ProtocolError
from device_agent.errors import AgentError
from device_agent.files import free_bytes
from device_agent.home import HOME_NAMES, prepare_home, remove_socket_folder
from device_agent.installing.folders import remove as remove_path
from device_agent.installing.running import use_of
from device_agent.installing.services import (
    Changes,
    Service,
    all_homes,
    forget_changes,
    is_installed,
    read_changes,
    remove_empty,
    with_home,
)
from device_agent.layout import SYSTEM_HOME, SYSTEM_ROOT, USER_ROOT
from device_agent.releases import Part, Releases, read_manifest
from device_agent.sha256 import sha256_of_file

SELF_TEST_S = 600.0

Result = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """Where the agent is, or is to be: its releases, its data, what the host sends, and what starts it."""

    root: Path
    home: Path
    incoming: Path
    service: Service

    @property
    def homes(self) -> list[Path]:
        """Every folder in which an agent from here may have its data; ``home`` is the last."""
        return all_homes(read_changes(self.root), self.home)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 0 unless the last line is an error."""
    options = _parser().parse_args(arguments)
    # What is installed may be read by all of the board; what the agent keeps sees to itself.
    os.umask(0o022)
    # The host may be gone by now: a step that has begun is finished all the same.
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        command: Callable[[argparse.Namespace], Result] = options.run
        _say({"result": command(options)})
    except (AgentError, ProtocolError, OSError) as error:
        _say({"error": str(error)})
        return 1
    return 0


def prepare(options: argparse.Namespace) -> Result:
    """Say which parts are here already, how much of the others, and how much room there is for the rest."""
    place = _place(options)
    place.incoming.mkdir(mode=0o700, parents=True, exist_ok=True)
    wanted = [_file(place, part) for part in options.part]
    for path in place.incoming.glob(".part-*"):
        if path not in wanted:
            path.unlink()
    return {
        "parts": _found(Releases(place.root), place, options.part),
        "incoming_free_bytes": free_bytes(place.incoming),
        "root_free_bytes": free_bytes(_nearest(place.root)),
        "same_disk": place.incoming.stat().st_dev == _nearest(place.root).stat().st_dev,
    }


def _found(releases: Releases, place: Place, parts: Sequence[Part]) -> list[Result]:
    # A release that is here has its environments.
    is_whole = any(releases.has(part) for part in parts if not part.runtime)
    found = []
    for part in parts:
        file = _file(place, part)
        begun = file.is_file()
        found.append(
            {
                "sha256": part.sha256,
                "is_here": is_whole or releases.has(part),
                "part_bytes": file.stat().st_size if begun else 0,
                "part_sha256": sha256_of_file(file) if begun else None,
            }
        )
    return found


def install(options: argparse.Namespace) -> Result:
    """Put the release that came beside those that are here, test it, and make it the one that runs."""
    place = _place(options)
    [release], environments = _sorted(options.part)
    with _only_installer(place.root):
        _refuse_while_used(place, options.holder)
        releases = Releases(place.root)
        releases.remove_leftovers()
        _say({"stage": "unpack"})
        releases.add(release, environments, lambda part: _file(place, part), _self_test)
        _refuse_while_used(place, options.holder)
        _say({"stage": "start"})
        changes = place.service.put(_with_its_home(place), releases.folder(release.id))
        # What systemd and useradd have written does not sync itself, and may lie on another disk than the link.
        os.sync()
        releases.activate(release.id)
        _start(place, releases, changes)
        releases.remove_others()
        _remove_incoming(place)
        return {"release": releases.current, "previous": releases.previous, "note": changes.note, "unit": changes.unit}


def _with_its_home(place: Place) -> Changes:
    """Return what was changed here, with the home that is asked for; one that cannot be had changes nothing."""
    changes = read_changes(place.root)
    if changes.homes and changes.homes[-1] != str(place.home):
        prepare_home(place.home)
    return with_home(changes, place.home)


def _start(place: Place, releases: Releases, changes: Changes) -> None:
    """Start the current release; one that does not start gives way to the release before it."""
    try:
        place.service.restart(changes)
    except AgentError as error:
        if releases.previous in (None, releases.current):
            raise
        raise AgentError(f"{error}; went back to release {_go_back(place, releases)}") from error


def restart(options: argparse.Namespace) -> Result:
    """End the agent that runs, so that the current release is started."""
    place = _place(options)
    with _only_installer(place.root):
        _refuse_while_used(place, options.holder)
        place.service.restart(read_changes(place.root))
        _remove_incoming(place)
    return {}


def roll_back(options: argparse.Namespace) -> Result:
    """Make the previous release the one that runs."""
    place = _place(options)
    with _only_installer(place.root):
        releases = Releases(place.root)
        releases.remove_leftovers()
        return {"release": _go_back(place, releases)}


def _go_back(place: Place, releases: Releases) -> str:
    back = releases.roll_back()
    place.service.restart(place.service.put(read_changes(place.root), releases.folder(back)))
    releases.remove_others()
    _remove_incoming(place)
    return back


def remove(options: argparse.Namespace) -> Result:
    """Remove everything that was installed, and what the agent keeps."""
    place = _place(options)
    removed: list[str] = []
    homes = place.homes
    with _only_installer(place.root):
        if is_installed(place.root):
            _refuse_while_used(place, options.holder)
            _refuse_to_lose_jobs(homes, options.discard)
            removed += _remove_all(place)
        (place.root / "install.lock").unlink()
        _remove_incoming(place)
    remove_empty(place.root, place.root.parent if options.system else Path.home())
    for home in homes:
        remove_empty(home.parent, Path.home())
    return {"removed": removed}


def _remove_all(place: Place) -> list[str]:
    releases = Releases(place.root)
    releases.remove_leftovers()
    removed = place.service.remove(read_changes(place.root))
    removed += releases.remove_all()
    for home in place.homes:
        removed += _remove_home(home)
    remove_socket_folder()
    # Last of all: by it an agent that was removed in part is known as one of ours.
    forget_changes(place.root)
    return removed


def _remove_home(home: Path) -> list[str]:
    """Remove what the agent keeps; a folder in which there is something else was somebody's before, and stays."""
    found = [home / name for name in HOME_NAMES if os.path.lexists(home / name)]
    for path in found:
        remove_path(path)
    with suppress(OSError):
        home.rmdir()
        return [str(home)]
    return [str(path) for path in found]


def _self_test(folder: Path) -> None:
    """Raise AgentError unless each runtime of the release in ``folder`` gives the numbers that it gives elsewhere."""
    _say({"stage": "self-test"})
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    for environment in read_manifest(folder).environments:
        runtime = environment.runtime
        python = str(folder / "runtimes" / runtime / "bin" / "python")
        try:
            done = subprocess.run(
                [python, "-s", "-m", "device_agent.selftest", runtime],
                cwd="/",
                env=clean,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=SELF_TEST_S,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise AgentError(f"self-test of {runtime} failed: {error}") from error
        if done.returncode:
            lines = done.stdout.decode(errors="replace").strip().splitlines() or [f"it ended with {done.returncode}"]
            raise AgentError(f"self-test of {runtime} failed: {lines[-1][:500]}")


def _refuse_while_used(place: Place, holder: str) -> None:
    for home in place.homes:
        use = use_of(home, holder)
        if use:
            raise AgentError(f"the agent there is in use: {use}; wait until it is not")


def _refuse_to_lose_jobs(homes: Sequence[Path], discard: bool) -> None:
    # A job is forgotten once a host has fetched its result: what lies there is still to be fetched.
    jobs = sorted(path.name for home in homes for path in (home / "jobs").glob("[!.]*"))
    if jobs and not discard:
        remedy = 'run their experiments again to have them, or "edgepress device unprovision" with "--discard"'
        raise AgentError(f"there are results that no host has fetched: {', '.join(jobs[:10])}; {remedy}")


@contextmanager
def _only_installer(root: Path) -> Iterator[None]:
    root.mkdir(mode=0o755, parents=True, exist_ok=True)
    with (root / "install.lock").open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AgentError("another host is installing an agent there; wait until it has finished") from None
        yield


def _remove_incoming(place: Place) -> None:
    """Remove what the host has sent; this very program is read from there, so nothing new may be imported after it."""
    shutil.rmtree(place.incoming, ignore_errors=True)
    remove_empty(place.incoming.parent, place.incoming.parents[len(Path(USER_ROOT).parts)])


def _file(place: Place, part: Part) -> Path:
    return place.incoming / f".part-{part.sha256}"


def _sorted(parts: Sequence[Part]) -> tuple[list[Part], list[Part]]:
    """Return the release, and the environments."""
    return [part for part in parts if not part.runtime], [part for part in parts if part.runtime]


def _parsed(text: str) -> Part:
    runtime, _, rest = text.partition(":")
    id, _, sha256 = rest.partition(":")
    try:
        return Part(runtime, id, sha256)
    except ProtocolError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _nearest(folder: Path) -> Path:
    return next(place for place in (folder, *folder.parents) if place.is_dir())


def _place(options: argparse.Namespace) -> Place:
    incoming = options.incoming
    if options.system:
        from device_agent.installing.system_service import SystemService

        return Place(Path(SYSTEM_ROOT), Path(SYSTEM_HOME), incoming, SystemService())
    from device_agent.installing.user_service import UserService

    root = Path.home() / USER_ROOT
    return Place(root, options.home, incoming, UserService(root, options.home))


def _say(message: Result) -> None:
    # When nobody is left to be told, there is nothing buffered for Python to fail at in the end.
    with suppress(OSError):
        os.write(1, json.dumps(message).encode() + b"\n")


_PART_HELP = "RUNTIME:ID:SHA256 of a file that the host sends; without RUNTIME for the release itself"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="edgepress-installer", description="Install edgepress's agent here.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, run in (
        ("prepare", prepare),
        ("install", install),
        ("restart", restart),
        ("roll-back", roll_back),
        ("remove", remove),
    ):
        command = commands.add_parser(name, help=(run.__doc__ or "").splitlines()[0])
        command.set_defaults(run=run)
        command.add_argument("--system", action="store_true", help="for the whole board, in a unit of the system's")
        command.add_argument("--home", type=Path, required=True, help="the agent's folder")
        command.add_argument("--incoming", type=Path, required=True, help="where the host puts what it sends")
        command.add_argument("--holder", default="", help="in whose name the host that asks has leased the device")
        if name in ("prepare", "install"):
            command.add_argument("--part", type=_parsed, action="append", required=True, help=_PART_HELP)
        if name == "remove":
            command.add_argument("--discard", action="store_true", help="also results that no host has fetched")
    return parser


if __name__ == "__main__":
    sys.exit(main())
