"""What a bundle holds, and that it is the same whenever and wherever it is built."""

import base64
import gzip
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import time
import zipfile
from dataclasses import replace

import pytest

from device_agent.layout import MANIFEST
from pipeline.cache import Cache, key_of
from pipeline.devices.provisioning.bundle import KEPT_PARTS, KEPT_S, Bundle, agent_files, build_bundle, hash_of
from pipeline.devices.provisioning.choice import Choice
from pipeline.devices.provisioning.installer import installer_zip
from pipeline.devices.provisioning.probe import BoardPython
from pipeline.devices.provisioning.provision import AGENT_FOLDER
from pipeline.devices.provisioning.wheels import Lock, Wheel
from pipeline.errors import ProvisioningFailed

PYTHON = BoardPython("/usr/bin/python3.11", (3, 11, 2), "cpython", 64, (2, 36), None)
SITE = "lib/python3.11/site-packages"


def small_wheel() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        files = {"engine/__init__.py": b"answer = 42\n", "engine/tests/test_it.py": b"", "engine/lib.so": b"\x7fELF"}
        rows = []
        for name, data in files.items():
            archive.writestr(name, data)
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
            rows.append(f"{name},sha256={digest},{len(data)}\n")
        archive.writestr("engine-1.dist-info/RECORD", "".join(rows))
    return content.getvalue()


WHEEL = small_wheel()


def choice_in(cache: Cache, runtime: str = "litert") -> Choice:
    """Return a choice of one small wheel, which is in the cache as if pip had fetched it."""
    wheel = Wheel("engine", "1", hashlib.sha256(WHEEL).hexdigest(), "engine-1-py3-none-any.whl")
    lock = Lock(runtime, (3, 11), "aarch64", (wheel, Wheel("numpy", "2", wheel.sha256, wheel.file)), f"{runtime}\n")
    folder = cache.subfolder("wheels") / key_of(lock.text)
    folder.mkdir(exist_ok=True)
    (folder / wheel.file).write_bytes(WHEEL)
    return Choice(PYTHON, "aarch64", (replace(lock, wheels=lock.wheels[:1]),))


@pytest.fixture
def small_agent(tmp_path):
    """A package that stands for the agent's."""
    folder = tmp_path / "device_agent"
    (folder / "golden").mkdir(parents=True)
    (folder / "__pycache__").mkdir()
    (folder / "__init__.py").write_text('__version__ = "7.1"\n')
    (folder / "golden" / "data.json").write_bytes(b"\0\1")
    (folder / "__pycache__" / "x.pyc").write_bytes(b"")
    return folder


def members_of(path) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(path) as tar:
        return {member.name: member for member in tar}


def test_the_same_inputs_give_the_same_bytes(tmp_path, small_agent):
    built = []
    for name in ("one", "two"):
        cache = Cache(tmp_path / name)
        built.append(build_bundle(choice_in(cache), small_agent, cache))
        # What differs from host to host and from day to day.
        os.utime(small_agent / "__init__.py", (time.time() - 1e6, time.time() - 1e6))
        (small_agent / "golden" / "data.json").chmod(0o600)
    for one, two in zip(built[0].parts, built[1].parts, strict=True):
        assert one.path.read_bytes() == two.path.read_bytes()
        assert one.part == two.part
        assert one.part.id == hashlib.sha256(gzip.decompress(one.path.read_bytes())).hexdigest()[:16]
        assert one.part.sha256 == hashlib.sha256(one.path.read_bytes()).hexdigest()
        assert one.unpacked_bytes == len(gzip.decompress(one.path.read_bytes()))


def test_a_bundle_has_the_agent_a_launcher_and_an_environment_for_each_runtime(tmp_path, small_agent):
    cache = Cache(tmp_path / "cache")
    bundle = build_bundle(choice_in(cache), small_agent, cache)
    agent, environment = (members_of(part.path) for part in bundle.parts)
    assert list(agent) == [
        MANIFEST, "bin/edgepress-agent", "agent/edgepress-agent.py", "agent/device_agent/__init__.py",
        "agent/device_agent/golden/data.json",
    ]  # fmt: skip
    assert list(environment) == [
        f"{SITE}/edgepress-agent.pth",
        f"{SITE}/engine-1.dist-info/RECORD",
        f"{SITE}/engine/__init__.py",
        f"{SITE}/engine/lib.so",
    ]
    members = {**agent, **environment}
    assert {(member.mtime, member.uid, member.gid, member.uname) for member in members.values()} == {(0, 0, 0, "")}
    assert [name for name, member in members.items() if member.mode & 0o100] == ["bin/edgepress-agent"]
    with tarfile.open(bundle.agent.path) as tar:
        manifest = json.load(tar.extractfile(MANIFEST))
    assert manifest == {
        "agent_version": "7.1",
        "board_numpy": True,
        "environments": [{"runtime": "litert", "id": bundle.environments[0].part.id}],
        "machine": "aarch64",
        "python": "3.11",
    }


def test_what_was_built_is_not_built_again(tmp_path, small_agent):
    cache = Cache(tmp_path / "cache")
    choice = choice_in(cache)
    first = build_bundle(choice, small_agent, cache)
    built_ns = [part.path.stat().st_mtime_ns for part in first.parts]
    assert build_bundle(choice, small_agent, cache) == first
    assert [part.path.stat().st_mtime_ns for part in first.parts] == built_ns


def version_of(number: int, agent, cache: Cache) -> Bundle:
    """Return the bundle of another version of the agent."""
    (agent / "__init__.py").write_text(f'__version__ = "{number}"\n')
    return build_bundle(choice_in(cache), agent, cache)


def test_another_agent_is_another_release_with_the_same_environment(tmp_path, small_agent):
    cache = Cache(tmp_path / "cache")
    one, two = (version_of(number, small_agent, cache) for number in range(2))
    assert one.release != two.release
    assert one.environments == two.environments


def test_parts_that_nobody_has_used_for_a_day_are_removed_but_for_a_few(tmp_path, small_agent):
    cache = Cache(tmp_path / "cache")
    built = [version_of(number, small_agent, cache) for number in range(KEPT_PARTS + 2)]
    # So many in one day, as when several agents are tried: any of them may be on its way to a board.
    assert all(bundle.agent.path.exists() for bundle in built)
    for number, bundle in enumerate(built):
        used_s = time.time() - KEPT_S - 1000 + number
        os.utime(bundle.agent.path.parent, (used_s, used_s))
    # The oldest is asked for again, and not built again.
    assert version_of(0, small_agent, cache) == built[0]
    version_of(99, small_agent, cache)
    kept = KEPT_PARTS - 1
    assert [bundle.agent.path.exists() for bundle in built] == [True] + [False] * (len(built) - kept) + [True] * (
        kept - 1
    )


def test_a_wheel_that_was_changed_in_the_cache_is_refused(tmp_path, small_agent):
    cache = Cache(tmp_path / "cache")
    choice = choice_in(cache)
    [path] = (tmp_path / "cache" / "wheels").glob("*/*.whl")
    path.write_bytes(WHEEL + b"x")
    with pytest.raises(ProvisioningFailed, match="has the SHA-256"):
        build_bundle(choice, small_agent, cache)
    assert [path for path in (tmp_path / "cache" / "environments").iterdir() if path.is_dir()] == []


def test_the_agents_package_goes_with_its_data_and_without_what_python_makes():
    names = {file.name for file in agent_files(AGENT_FOLDER)}
    assert {
        "device_agent/__init__.py",
        "device_agent/units/edgepress-agent.service",
        "device_agent/golden/golden.tflite",
        "device_agent/installing/cli.py",
    } <= names
    assert not [name for name in names if name.endswith((".pyc", ".toml"))]


def test_the_installer_is_the_same_bytes_each_time_and_runs_without_a_site(tmp_path):
    files = agent_files(AGENT_FOLDER)
    content = installer_zip(files)
    assert content == installer_zip(agent_files(AGENT_FOLDER))
    path = tmp_path / "installer.pyz"
    path.write_bytes(content)
    command = [sys._base_executable, "-I", "-S", "-B", str(path), "--help"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0
    for name in ("prepare", "install", "restart", "roll-back", "remove"):
        assert name in done.stdout
    assert hash_of(files) == hash_of(list(files))
