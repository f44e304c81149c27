"""The locks of wheels, and what is taken out of a wheel."""

import base64
import hashlib
import importlib.util
import io
import re
import stat
import sys
import zipfile
from pathlib import Path

import pytest

from pipeline.cache import Cache
from pipeline.devices.provisioning.unzipping import wheel_files
from pipeline.devices.provisioning.wheels import Lock, Wheel, all_locks, check_wheel, fetch_wheels, find_lock
from pipeline.errors import ProvisioningFailed

LOCKS = all_locks()


def test_there_are_wheels_for_every_python_that_is_promised():
    offered = {}
    for lock in LOCKS:
        offered.setdefault((lock.runtime, lock.machine), set()).add(lock.python[1])
    assert offered == {
        ("litert", "aarch64"): set(range(9, 15)),
        ("litert", "x86_64"): set(range(9, 15)),
        ("tflite_runtime", "aarch64"): {9, 10, 11},
        ("tflite_runtime", "x86_64"): {9, 10, 11},
        ("tflite_runtime", "armv7l"): {9, 10, 11},
    }


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: f"{lock.runtime}-{lock.python[1]}-{lock.machine}")
def test_a_lock_names_wheels_of_its_own_python_and_machine(lock):
    python = f"cp{lock.python[0]}{lock.python[1]}"
    for wheel in lock.wheels:
        name, version, _, abi, platforms = wheel.file.removesuffix(".whl").split("-")
        assert (re.sub("_", "-", name), version) == (wheel.name, wheel.version)
        assert abi in (python, "abi3", "none")
        assert all(platform.endswith(lock.machine) for platform in platforms.split("."))
    assert lock.wheels[0].name in ("ai-edge-litert", "tflite-runtime")


def file_of(lock: Lock) -> str:
    return f"{lock.runtime}-cp3{lock.python[1]}-{lock.machine}.txt"


@pytest.fixture
def locking(monkeypatch, tmp_path):
    """The program that writes the locks, into a folder of its own in which there are some."""
    path = Path(__file__).parents[4] / "requirements" / "lock_boards.py"
    spec = importlib.util.spec_from_file_location("lock_boards", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "LOCKS", tmp_path / "locks")
    module.LOCKS.mkdir()
    for lock in LOCKS:
        (module.LOCKS / file_of(lock)).write_text(lock.text)
    (module.LOCKS / "old_runtime-cp38-aarch64.txt").write_text("old\n")
    return module


def test_locks_stay_as_they_were_when_one_of_them_cannot_be_resolved(locking, monkeypatch):
    def resolve(requirement, machine, minor):
        return sys.exit("no network") if machine == "armv7l" else "a==1"

    before = {path: path.read_text() for path in locking.LOCKS.iterdir()}
    monkeypatch.setattr(locking, "resolve", resolve)
    with pytest.raises(SystemExit, match="no network"):
        locking.main()
    assert {path: path.read_text() for path in locking.LOCKS.iterdir()} == before


def test_locks_are_written_anew_and_those_for_which_there_are_no_wheels_any_more_go(locking, monkeypatch):
    monkeypatch.setattr(locking, "resolve", lambda requirement, machine, minor: None if minor == 9 else "a==1")
    locking.main()
    found = list(locking.LOCKS.iterdir())
    assert {path.name for path in found} == {name for name in map(file_of, LOCKS) if "cp39" not in name}
    assert all(path.read_text().endswith("\na==1\n") for path in found)


def test_only_for_armv7_there_is_no_wheel_of_numpy():
    assert {lock.machine for lock in LOCKS if not lock.has_numpy} == {"armv7l"}


def test_the_glibc_of_a_lock_is_what_its_pickiest_wheel_needs():
    assert find_lock("tflite_runtime", (3, 11), "aarch64").glibc == (2, 34)
    assert find_lock("litert", (3, 11), "aarch64").glibc >= (2, 27)
    assert Wheel("a", "1", "", "a-1-cp311-cp311-manylinux2014_x86_64.manylinux_2_28_x86_64.whl").glibc == (2, 17)
    assert Wheel("a", "1", "", "a-1-py3-none-any.whl").glibc == (0, 0)


def test_there_is_no_lock_for_what_has_no_wheel():
    assert find_lock("litert", (3, 11), "armv7l") is None
    assert find_lock("tflite_runtime", (3, 12, 1), "aarch64") is None


def test_a_wheel_of_other_content_than_the_lock_names_is_refused(tmp_path):
    path = tmp_path / "a.whl"
    path.write_bytes(b"changed")
    wheel = Wheel("a", "1", hashlib.sha256(b"as locked").hexdigest(), "a.whl")
    with pytest.raises(ProvisioningFailed, match=r"has the SHA-256 .*; remove that folder and run again"):
        check_wheel(path, wheel)


def test_a_wheel_that_pip_cannot_fetch_is_told_with_its_reason_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    lock = find_lock("tflite_runtime", (3, 9), "armv7l")
    cache = Cache(tmp_path)
    with pytest.raises(ProvisioningFailed, match=r"pip cannot fetch tflite-runtime 2\.14\.0: ERROR: No matching"):
        fetch_wheels(lock, cache)
    assert [path for path in (tmp_path / "wheels").iterdir() if path.is_dir()] == []


def wheel_of(folder, files, record=None, mode=stat.S_IFREG | 0o644):
    """Write a wheel with these files and a RECORD of them."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, data in files.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            archive.writestr(info, data)
        lines = [f"{name},sha256={hash_of(data)},{len(data)}" for name, data in files.items()]
        lines.append("a-1.dist-info/RECORD,,")
        archive.writestr("a-1.dist-info/RECORD", "\n".join(lines) if record is None else record)
    path = folder / "a-1-py3-none-any.whl"
    path.write_bytes(content.getvalue())
    return path


def hash_of(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")


def test_what_belongs_to_site_packages_is_taken_and_tests_stubs_and_scripts_are_not(tmp_path):
    files = {
        "b/z.py": b"z",
        "b/a.so": b"a",
        "b/a.pyi": b"stub",
        "b/tests/test_a.py": b"test",
        "b/include/a.h": b"header",
        "a-1.data/platlib/c/d.py": b"d",
        "a-1.data/scripts/run": b"script",
        "a-1.dist-info/METADATA": b"Name: a",
    }
    found = dict(wheel_files(wheel_of(tmp_path, files)))
    assert list(found) == ["a-1.dist-info/METADATA", "a-1.dist-info/RECORD", "b/a.so", "b/z.py", "c/d.py"]
    assert (found["b/z.py"], found["c/d.py"]) == (b"z", b"d")


@pytest.mark.parametrize("name", ["../a.py", "/a.py", "b/../../a.py", "b\\..\\a.py", "c:/a.py", "b//a.py", "b/a\n.py"])
def test_a_name_that_could_lead_out_of_the_folder_is_refused(tmp_path, name):
    with pytest.raises(ProvisioningFailed, match="which is no plain relative path"):
        list(wheel_files(wheel_of(tmp_path, {name: b"x"})))


def test_a_link_in_a_wheel_is_refused(tmp_path):
    with pytest.raises(ProvisioningFailed, match="which is neither a file nor a folder"):
        list(wheel_files(wheel_of(tmp_path, {"b/a": b"/etc/passwd"}, mode=stat.S_IFLNK | 0o777)))


def test_a_file_that_is_not_what_the_record_says_is_refused(tmp_path):
    record = f"b/a.py,sha256={hash_of(b'other')},5\n"
    with pytest.raises(ProvisioningFailed, match=r"b/a\.py is not what its RECORD says"):
        list(wheel_files(wheel_of(tmp_path, {"b/a.py": b"x"}, record)))


def test_a_file_that_the_record_does_not_have_is_refused(tmp_path):
    with pytest.raises(ProvisioningFailed, match=r"b/a\.py is not what its RECORD says"):
        list(wheel_files(wheel_of(tmp_path, {"b/a.py": b"x"}, "")))


def test_two_files_for_one_place_are_refused(tmp_path):
    files = {"b/a.py": b"x", "a-1.data/purelib/b/a.py": b"y"}
    with pytest.raises(ProvisioningFailed, match=r"has b/a\.py twice"):
        list(wheel_files(wheel_of(tmp_path, files)))


def test_what_is_no_zip_is_refused(tmp_path):
    path = tmp_path / "a.whl"
    path.write_bytes(b"PK\3\4 and no more")
    with pytest.raises(ProvisioningFailed, match="is no wheel"):
        list(wheel_files(path))
