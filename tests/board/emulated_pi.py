"""The emulated board with a host of its own, as the tests drive both: by the command line and over SSH."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import on_board
from processes import heed_ctrl_c

from pipeline.cache import Cache
from pipeline.emulated_board.board import Board
from pipeline.emulated_board.keys import make_keys
from pipeline.emulated_board.registration import NAME
from pipeline.yaml_file import load_yaml

ROOT = Path(__file__).parents[2]
PROVISION = ("device", "provision", NAME)
BOTH = (*PROVISION, "--runtime", "litert", "--runtime", "tflite_runtime")
LONGEST_S = 3600.0
AGENT_STARTS_S = 120.0
FILLER = "/home/pi/filler"


class Running:
    """A command of the host's that is under way, its lines as they come."""

    def __init__(self, command: list[str], cwd: Path, environment: dict[str, str]) -> None:
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self._process = subprocess.Popen(
            command, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, preexec_fn=heed_ctrl_c,
        )  # fmt: skip
        self._ended = False
        threading.Thread(target=self._read, daemon=True).start()

    def await_line(self, beginning: str) -> None:
        """Return once a line that begins so was printed; fail when the command ends without."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._ended or self.said(beginning), LONGEST_S)
        assert self.said(beginning), "".join(self.lines)

    def goes_on_for(self, duration_s: float) -> bool:
        """Wait for ``duration_s``; return whether the command is still under way then."""
        try:
            self._process.wait(duration_s)
        except subprocess.TimeoutExpired:
            return True
        return False

    def interrupt(self) -> int:
        """End the command as Ctrl-C does, unless it has just ended; return its exit code."""
        self._process.send_signal(signal.SIGINT)
        return self.finish()[0]

    def finish(self) -> tuple[int, str]:
        """Wait for its end, and return its exit code and all that it printed."""
        code = self._process.wait(LONGEST_S)
        with self._changed:
            assert self._changed.wait_for(lambda: self._ended, 60)
        return code, "".join(self.lines)

    def kill(self) -> None:
        """See that nothing of it is left, whatever became of the test."""
        self._process.kill()
        self._process.wait()

    def said(self, beginning: str, but: str | None = None) -> bool:
        """Whether a line that begins so was printed, other than one that begins with ``but``."""
        lines = [line for line in self.lines if but is None or not line.startswith(but)]
        return any(line.startswith(beginning) for line in lines)

    def _read(self) -> None:
        for line in self._process.stdout or ():
            with self._changed:
                self.lines.append(line)
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()


class EmulatedPi:
    """The board, and the host that knows it: a home of its own, and the user's cache, in which images are kept."""

    def __init__(self, folder: Path, cache_home: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        self._cache = Cache(cache_home / "edgepress")
        self._cache_home = cache_home
        self._board_folder = self.home / ".local" / "share" / "edgepress" / "board"
        self.board = Board(self._board_folder, self._cache, self.log)
        self.home.mkdir(parents=True)

    def log(self, text: str) -> None:
        """Print a line of the log that ``make test-board`` leaves."""
        print(f"board: {time.strftime('%H:%M:%S')} {text}", flush=True)

    def environment(self, tree: Path = ROOT) -> dict[str, str]:
        """Return the host's environment, with edgepress from ``tree``."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("XDG_", "EDGEPRESS"))}
        places = {"HOME": str(self.home), "XDG_CACHE_HOME": str(self._cache_home), "PYTHONPATH": str(tree)}
        return {**kept, **places}

    def start(self, *words: str, tree: Path = ROOT) -> Running:
        """Start a command of edgepress's."""
        command = [sys.executable, "-m", "pipeline.cli", *words]
        return Running(command, self.folder, self.environment(tree))

    def edgepress(self, *words: str, tree: Path = ROOT, code: int = 0) -> str:
        """Run a command of edgepress's to its end, which is to be ``code``, and return what it printed."""
        ended, printed = self.start(*words, tree=tree).finish()
        assert ended == code, printed
        assert "Traceback" not in printed, printed
        return printed

    def up(self) -> float:
        """Start the board; return how many seconds that took."""
        begin = time.monotonic()
        self.edgepress("board", "up")
        return time.monotonic() - begin

    def reset(self) -> float:
        """Make the board bare; return how many seconds that took."""
        begin = time.monotonic()
        self.edgepress("board", "reset")
        return time.monotonic() - begin

    def ssh(self, *words: str, given: bytes = b"", ok: bool = True) -> str:
        """Run a command on the board and return what it printed."""
        done = subprocess.run(self.board.ssh_command(words), input=given, capture_output=True, timeout=LONGEST_S)
        assert not ok or done.returncode == 0, (words, done.stderr.decode(errors="replace"))
        return done.stdout.decode(errors="replace")

    def python(self, script: str, *words: str, as_root: bool = False) -> str:
        """Run a script with the board's own Python and return what it printed."""
        return self.ssh(*(("sudo", "-n") if as_root else ()), "python3", "-", *words, given=script.encode())

    def put(self, path: str, content: bytes) -> None:
        """Write a file on the board."""
        self.ssh("tee", path, given=content)

    def fill_disk(self, left_bytes: int) -> None:
        """Leave so much of the board's disk free."""
        free = int(self.python("import os; found = os.statvfs('/'); print(found.f_bavail * found.f_frsize)"))
        self.ssh("fallocate", "--length", str(free - left_bytes), FILLER)

    def empty_disk(self) -> None:
        """Take back what ``fill_disk`` has taken."""
        self.ssh("rm", "-f", FILLER)

    def device(self) -> Any:
        """Return the board as the host's inventory has it now."""
        from pipeline.devices.inventory import DeviceSection

        return load_yaml(self.home / ".config" / "edgepress" / "devices" / f"{NAME}.yaml", DeviceSection)

    @property
    def agent(self) -> str:
        """The path of the agent that was provisioned."""
        return str(self.device().agent).replace("~", "/home/pi", 1)

    @property
    def agent_home(self) -> str:
        """The folder in which the agent keeps its files."""
        return str(self.device().home or "/home/pi/.local/share/edgepress-agent")

    @property
    def root(self) -> str:
        """The folder of the releases: ``<root>/current/bin/edgepress-agent`` is the agent."""
        return str(Path(self.agent).parents[2])

    def await_agent(self) -> None:
        """Return once the agent answers that the board has started by itself."""
        scope, become = ("--system", ("sudo", "-n", "-u", "edgepress")) if self.is_system else ("--user", ())
        words = (scope, *become, self.agent, "status", "--home", self.agent_home)
        self.python(on_board.AWAIT_AGENT, *words, str(AGENT_STARTS_S))

    @property
    def is_system(self) -> bool:
        """Whether the agent is the whole system's."""
        return self.root.startswith("/opt")

    def blobs(self) -> dict[str, Any]:
        """Return how many blobs there are, and which are wrong."""
        return dict(json.loads(self.python(on_board.BLOBS, self.agent_home, as_root=self.is_system)))

    def jobs(self) -> dict[str, str]:
        """Return the state of every job on the board's disk."""
        return dict(json.loads(self.python(on_board.JOBS, self.agent_home, as_root=self.is_system)))

    def releases(self, root: str) -> dict[str, Any]:
        """Return the current release below ``root``, and a digest of each that has its name."""
        return dict(json.loads(self.python(on_board.RELEASES, root)))

    def leftovers(self) -> set[str]:
        """Return all that is on the board where an installation could leave something, users and processes too."""
        return set(json.loads(self.python(on_board.LEFTOVERS, as_root=True)))

    def end(self) -> None:
        """Cut the board off, and remove its image, which nobody else can use."""
        from pipeline.emulated_board.image import image_key

        self.board.cut_power()
        image = self._cache.subfolder("board") / image_key(make_keys(self._board_folder / "keys"))
        shutil.rmtree(image, ignore_errors=True)


def changed_tree(folder: Path, version: str) -> Path:
    """Return a copy of edgepress whose agent is another version."""
    for package in ("device_agent", "pipeline", "models", "requirements"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("setup.cfg", "pyproject.toml", "README.md"):
        shutil.copyfile(ROOT / file, folder / file)
    init = folder / "device_agent" / "__init__.py"
    text = init.read_text()
    changed = text + f'\n__version__ = "{version}"\n'
    init.write_text(changed)
    return folder
