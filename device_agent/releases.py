"""What is deployed: verified, unpacked, tested, activated by the switch of one link, and rolled back.

A release is the agent and links to the environments of its runtimes, which several releases share: an upgrade of the
agent brings a few hundred kilobytes. A folder below ``releases`` or ``environments`` has its name from a rename that
was made when all of it was on the disk, and loses the name before anything in it is removed. So what has a name is
whole, after a power cut at any instant; names that begin with a dot are leftovers, which the next run removes.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from device_agent.errors import AgentError
from device_agent.files import sync_folder
from device_agent.installing.folders import folders_in, name, remove, rename_and_remove, sync_all_below
from device_agent.installing.unpacking import unpack
from device_agent.layout import MANIFEST, check_id
from device_agent.protocol import ProtocolError, check_identifier, check_sha256, from_json
from device_agent.sha256 import sha256_of_bytes, sha256_of_file


@dataclass(frozen=True)
class Part:
    """A file that a host sends: its SHA-256, and the id of what is in it; ``runtime`` is empty for the release."""

    runtime: str
    id: str
    sha256: str

    def __post_init__(self) -> None:
        check_id("part", self.id)
        check_sha256("part", self.sha256)
        if self.runtime:
            check_identifier("runtime", self.runtime)


@dataclass(frozen=True)
class Environment:
    """The environment of one runtime, by its id."""

    runtime: str
    id: str

    def __post_init__(self) -> None:
        check_identifier("runtime", self.runtime)
        check_id("environment", self.id)


@dataclass(frozen=True)
class Manifest:
    """What a release's own file says of it: its environments, the first of which starts the agent; Python as "3.11".

    ``board_numpy``: numpy is the board's own, since there is no wheel of it for this board.
    """

    environments: tuple[Environment, ...]
    python: str
    machine: str
    agent_version: str
    board_numpy: bool = False


class Releases:
    """The releases below ``root``; every method leaves them whole wherever it is cut."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._releases = root / "releases"
        self._environments = root / "environments"

    @property
    def current(self) -> str | None:
        """The id of the release that runs; None when there is none."""
        return self._target("current")

    @property
    def previous(self) -> str | None:
        """The id of the release that ``roll_back`` would go back to."""
        return self._target("previous")

    def folder(self, release: str) -> Path:
        """Return where the release lies."""
        return self._releases / check_id("release", release)

    def has(self, part: Part) -> bool:
        """Say whether what is in ``part`` is here, and its Python still on the board."""
        if part.runtime:
            return (self._environment(part.id) / "bin" / "python").exists()
        folder = self.folder(part.id)
        return folder.is_dir() and all((path / "bin" / "python").exists() for path in (folder / "runtimes").iterdir())

    def remove_leftovers(self) -> None:
        """Remove what an earlier run that was cut short has left."""
        patterns = (".tmp-*", ".new-*", ".gone-*")
        folders = (self.root, self._releases, self._environments)
        for path in [path for folder in folders for pattern in patterns for path in folder.glob(pattern)]:
            remove(path)

    def add(
        self, release: Part, environments: Sequence[Part], file_of: Callable[[Part], Path], test: Callable[[Path], None]
    ) -> None:
        """Unpack a release and those of its environments that are not here, and name them once ``test`` is content.

        Args:
            release: the release itself.
            environments: all that it may need.
            file_of: where the file of a part is.
            test: is given the release's folder; raises when it cannot be used.

        Raises:
            AgentError: if a file is not what it should be, or what ``test`` raises; nothing is left then.
        """
        if self.has(release):
            test(self.folder(release.id))
            return
        with self._staged(self.folder(release.id), file_of(release), release) as folder:
            manifest = read_manifest(folder)
            _check_python(manifest)
            wanted = {environment.id for environment in manifest.environments}
            missing = [part for part in environments if part.id in wanted and not self.has(part)]
            with self._all_staged(missing, file_of, manifest) as staged:
                _link(folder, {**{part.runtime: self._environment(part.id) for part in environments}, **staged})
                test(folder)
                # After the test: it has made Python write its .pyc files, which are to be whole as well.
                if missing:
                    sync_all_below(self.root)
                for part in missing:
                    name(staged[part.runtime], self._environment(part.id))
            _link(folder, {one.runtime: self._environment(one.id) for one in manifest.environments})
            sync_all_below(self.root)
            name(folder, self.folder(release.id))

    def activate(self, release: str) -> None:
        """Make ``release`` the current one, and the one that was it the previous one."""
        current = self.current
        if current and current != release:
            self._point("previous", current)
        self._point("current", release)

    def roll_back(self) -> str:
        """Make the previous release the current one again and return its id.

        Raises:
            AgentError: if there is none.
        """
        previous = self.previous
        if previous is None or previous == self.current:
            raise AgentError(f"{self.root} has no release to go back to")
        self._point("current", previous)
        return previous

    def remove_others(self) -> None:
        """Remove every release but the current and the previous one, and the environments that neither needs."""
        kept = {self.folder(release) for release in (self.current, self.previous) if release}
        needed = {path.resolve() for folder in kept for path in (folder / "runtimes").iterdir()}
        for folder in (*folders_in(self._releases), *folders_in(self._environments)):
            if folder not in kept and folder.resolve() not in needed:
                rename_and_remove(folder)

    def remove_all(self) -> list[str]:
        """Remove every release, and return what was removed."""
        removed = [str(folder) for folder in folders_in(self._releases)]
        for link in ("current", "previous"):
            (self.root / link).unlink(missing_ok=True)
        for folder in (self._releases, self._environments):
            if folder.is_dir():
                rename_and_remove(folder)
        return removed

    def _environment(self, id: str) -> Path:
        """Return where an environment lies: each Python of the board has its own."""
        python = sha256_of_bytes(os.fsencode(_python()))[:8]
        return self._environments / f"{check_id('environment', id)}-{python}"

    @contextmanager
    def _staged(self, final: Path, file: Path, part: Part) -> Iterator[Path]:
        """Give a folder with what is in ``part``; unless it has got its name by then, it is gone at the end."""
        found = sha256_of_file(file)
        if found != part.sha256:
            raise AgentError(f"{file.name} has the SHA-256 {found}; it came damaged, send it again")
        folder = final.with_name(f".new-{final.name}")
        folder.mkdir(parents=True)
        try:
            id = unpack(file, folder)[: len(part.id)]
            if id != part.id:
                raise AgentError(f"{file.name} holds {id}; expected {part.id}")
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def _all_staged(
        self, parts: Sequence[Part], file_of: Callable[[Part], Path], manifest: Manifest
    ) -> Iterator[dict[str, Path]]:
        """Give the folder of each of these environments by its runtime, with the board's Python in it."""
        if not parts:
            yield {}
            return
        first, *others = parts
        with self._staged(self._environment(first.id), file_of(first), first) as folder:
            _make_environment(folder, manifest.board_numpy)
            with self._all_staged(others, file_of, manifest) as staged:
                yield {first.runtime: folder, **staged}

    def _target(self, link: str) -> str | None:
        try:
            folder, _, release = str((self.root / link).readlink()).partition("/")
            check_id("release", release)
        except (OSError, ProtocolError):
            return None
        return release if folder == "releases" and (self._releases / release).is_dir() else None

    def _point(self, link: str, release: str) -> None:
        temporary = self.root / f".tmp-{link}"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(f"releases/{check_id('release', release)}")
        temporary.replace(self.root / link)
        sync_folder(self.root)


def read_manifest(folder: Path) -> Manifest:
    """Return what the release in ``folder`` says of itself.

    Raises:
        AgentError: if it says nothing that makes sense.
    """
    try:
        return from_json(Manifest, json.loads((folder / MANIFEST).read_bytes()))
    except (OSError, ValueError) as error:
        raise AgentError(f"{folder / MANIFEST}: {error}") from error


def _python() -> Path:
    return Path(sys.executable).resolve()


def _check_python(manifest: Manifest) -> None:
    ours = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if manifest.python != ours:
        raise AgentError(f"release is for Python {manifest.python}; {_python()} is {ours}")


def _make_environment(folder: Path, board_numpy: bool) -> None:
    """Make ``folder`` an environment of the Python that runs this.

    It is what the module venv makes of it, a file and a link, without that module, which many boards lack.
    """
    (folder / "bin").mkdir()
    (folder / "bin" / "python").symlink_to(_python())
    text = f"home = {_python().parent}\ninclude-system-site-packages = {str(board_numpy).lower()}\n"
    (folder / "pyvenv.cfg").write_text(text)


def _link(release: Path, environments: dict[str, Path]) -> None:
    """Point ``runtimes/<name>`` of the release to the environments that it needs."""
    (release / "runtimes").mkdir(exist_ok=True)
    for environment in read_manifest(release).environments:
        if environment.runtime not in environments:
            raise AgentError(f"release needs an environment for {environment.runtime}, which did not come with it")
        link = release / "runtimes" / environment.runtime
        link.unlink(missing_ok=True)
        link.symlink_to(Path("../../../environments") / environments[environment.runtime].name)
