import os
import subprocess
from pathlib import Path

import pytest

from pipeline.cache import Cache, key_of, write_text
from pipeline.errors import StorageError


def test_an_entry_appears_only_when_it_is_whole(tmp_path):
    cache = Cache(tmp_path / "c")
    with pytest.raises(RuntimeError), cache.entry("builds", "k") as (folder, _):
        (folder / "half").touch()
        raise RuntimeError
    assert list((tmp_path / "c" / "builds").iterdir()) == []
    with cache.entry("builds", "k") as (folder, there):
        assert not there
        (folder / "whole").touch()
        assert not (tmp_path / "c" / "builds" / "k").exists()
    with cache.entry("builds", "k") as (folder, there):
        assert there
        assert [path.name for path in folder.iterdir()] == ["whole"]


def test_an_entry_can_be_made_anew(tmp_path):
    cache = Cache(tmp_path)
    for name in ("first", "second"):
        with cache.entry("m", "k", replace=True) as (folder, there):
            assert not there
            (folder / name).touch()
    assert [path.name for path in (tmp_path / "m" / "k").iterdir()] == ["second"]


def test_leftovers_of_dead_processes_are_removed_and_of_living_ones_kept(tmp_path):
    child = subprocess.Popen(["true"])
    child.wait()
    cache = Cache(tmp_path)
    for pid in (child.pid, os.getpid()):
        (cache.subfolder("builds") / f".part-k-{pid}").mkdir()
    cache.remove_leftovers("builds")
    assert [path.name for path in (tmp_path / "builds").iterdir()] == [f".part-k-{os.getpid()}"]


def test_keys_depend_on_values_and_not_on_the_order_of_keys():
    assert key_of({"a": 1, "b": 2}) == key_of({"b": 2, "a": 1})
    assert key_of({"a": 1}) != key_of({"a": 2})


def test_a_full_disk_is_a_storage_error_that_names_the_place(small_disk: Path):
    target = small_disk / "big"
    with pytest.raises(StorageError, match=r"disk full while writing .*/big: .* MiB free"):
        write_text(target, "x" * (2 << 20))
    assert list(small_disk.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot write"):
        Cache(tmp_path / "file").subfolder("builds")
