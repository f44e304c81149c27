"""A run on several devices on disk."""

import json

import pytest

from pipeline.errors import UsageError
from pipeline.results.fleet_record import DeviceFailure, DeviceOutcome, FleetRecord, FleetVerdict
from pipeline.results.fleet_store import FleetRun, find_fleet, fleet_json, read_fleet

RECORD = FleetRecord(
    run_id="r",
    experiment="e",
    experiment_file="e.yaml",
    started_utc="a",
    finished_utc="b",
    metric="top1",
    baseline="float32",
    devices=(DeviceOutcome("pi-a", DeviceFailure("full", "no room"), asked="x"),),
    verdict=FleetVerdict(None, "none", {"int8": ("pi-a",)}),
    host={"edgepress": "0.1"},
)


def written(folder, **changes):
    content = {**json.loads(fleet_json(RECORD)), **changes}
    (folder / "fleet.json").write_text(json.dumps(content))
    return folder


def test_what_is_written_is_read(tmp_path):
    assert read_fleet(written(tmp_path)) == FleetRun(RECORD, {})


def test_each_device_says_whether_it_is_done(tmp_path):
    assert json.loads(fleet_json(RECORD))["devices"][0]["done"] is False


def test_a_later_schema_is_refused_with_those_that_are_read(tmp_path):
    with pytest.raises(UsageError, match=r"fleet.json: schema is 2; this edgepress reads 1; use the one that wrote it"):
        read_fleet(written(tmp_path, schema=2))


def test_a_damaged_record_is_told(tmp_path):
    with pytest.raises(UsageError, match=r"fleet.json: is damaged: devices"):
        read_fleet(written(tmp_path, devices=3))


@pytest.mark.parametrize("folder", ["../elsewhere", "/etc", "devices/../../x"])
def test_a_folder_outside_of_the_run_is_not_read(tmp_path, folder):
    outcome = {"device": "pi-a", "folder": folder, "valid": 1, "variants": 1}
    with pytest.raises(UsageError, match=r"expected one below the run's own"):
        read_fleet(written(tmp_path, devices=[outcome]))


def test_a_run_is_found_by_its_id_and_by_its_folder(tmp_path):
    folder = tmp_path / "runs" / "r"
    folder.mkdir(parents=True)
    written(folder)
    assert find_fleet(tmp_path / "runs", "r") == folder
    assert find_fleet(tmp_path / "elsewhere", str(folder)) == folder


def test_an_unknown_run_lists_the_newest(tmp_path):
    for name in "abcdefg":
        (tmp_path / name).mkdir()
        written(tmp_path / name)
    with pytest.raises(UsageError, match=r'unknown run "z"; runs on several devices in .*: g, f, e, d, c$'):
        find_fleet(tmp_path, "z")
