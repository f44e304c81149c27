from __future__ import annotations

import errno
import json
import os

import pytest

from pipeline.errors import StorageError, UsageError
from pipeline.results.store import read_record, write_record


def test_a_record_comes_back_as_it_was(record, tmp_path):
    assert read_record(write_record(record, tmp_path / "runs" / "r1")) == record


def test_file_is_indented_and_says_which_variants_are_valid(record, tmp_path):
    text = write_record(record, tmp_path).read_text(encoding="utf-8")
    assert text.startswith('{\n  "run_id": "r1"') and "é" in text
    assert [variant["valid"] for variant in json.loads(text)["variants"]] == [True, True, False]


def test_unknown_fields_are_ignored(record, tmp_path):
    path = write_record(record, tmp_path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"mood": "good"}))
    assert read_record(path) == record


def changed(record, folder, **changes):
    path = write_record(record, folder)
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return path


def test_another_schema_is_refused(record, tmp_path):
    with pytest.raises(UsageError, match=r"report\.json: schema is 5; this edgepress reads 1 to 4"):
        read_record(changed(record, tmp_path, schema=5))


@pytest.mark.parametrize("content", ["[]", "{}", "3"])
def test_json_that_is_no_record_is_refused(tmp_path, content):
    (tmp_path / "report.json").write_text(content)
    with pytest.raises(UsageError, match="is no report of edgepress"):
        read_record(tmp_path / "report.json")


def test_a_field_of_another_type_is_named(record, tmp_path):
    with pytest.raises(UsageError, match=r"is damaged: samples: input should be a valid integer"):
        read_record(changed(record, tmp_path, samples="many"))


def test_half_a_file_is_refused(record, tmp_path):
    path = write_record(record, tmp_path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UsageError, match="is not JSON"):
        read_record(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"nothing\.json: cannot be read: No such file"):
        read_record(tmp_path / "nothing.json")


def test_a_full_disk_leaves_what_was_there_and_nothing_half_written(record, tmp_path, monkeypatch):
    path = write_record(record, tmp_path)
    before = path.read_bytes()

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        StorageError, match=r"disk full while writing .*report\.json: .* MiB free; make room and run again"
    ):
        write_record(record, tmp_path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_made_is_a_storage_error(record, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        write_record(record, tmp_path / "file" / "runs")
