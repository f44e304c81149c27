"""A bare board behind a real sshd, and one cache of wheels and bundles for all tests of a session."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from bare_board import BareBoard
from ssh_server import SSHD

from pipeline.cache import Cache
from pipeline.devices.provisioning.provision import AGENT_FOLDER

if SSHD is None:
    collect_ignore = ["test_provision.py", "test_other_user.py"]


@pytest.fixture(scope="session")
def cache(tmp_path_factory) -> Cache:
    """What is fetched and built, once."""
    return Cache(tmp_path_factory.mktemp("cache") / "edgepress")


@pytest.fixture(scope="session")
def pip_cache() -> str:
    """Where pip keeps what "make setup" has fetched: the tests have a home of their own."""
    asked = [sys.executable, "-m", "pip", "cache", "dir"]
    return subprocess.run(asked, capture_output=True, text=True, env=ENVIRONMENT).stdout.strip()


ENVIRONMENT = dict(os.environ)


@pytest.fixture
def board(tmp_path, keys, home, monkeypatch, pip_cache):
    """A board that the user trusts and that has nothing on it."""
    monkeypatch.setenv("PIP_CACHE_DIR", pip_cache)
    made = BareBoard(tmp_path / "board", keys["host_a"], keys["user"])
    (home / ".ssh" / "known_hosts").write_text(made.server.known_hosts_line)
    yield made
    made.stop()


@pytest.fixture
def agent_copy(tmp_path):
    """A function that copies the agent's package and changes files of it."""
    count = 0

    def copy(changes: dict[str, tuple[str, str]]) -> Path:
        nonlocal count
        count += 1
        folder = tmp_path / f"agent{count}" / "device_agent"
        shutil.copytree(AGENT_FOLDER, folder, ignore=shutil.ignore_patterns("__pycache__"))
        for name, (old, new) in changes.items():
            path = folder / name
            text = path.read_text()
            assert old in text
            path.write_text(text.replace(old, new))
        return folder

    return copy
