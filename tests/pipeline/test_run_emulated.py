"""The whole line on a board that is emulated: everything but a time."""

import pytest

pytestmark = pytest.mark.tensorflow

FILES = "transport: local\nemulated: {emulated}\nconditions: {{max_temperature_c: null, max_other_cpus: null}}\n"


def write_device(bench, emulated: str) -> None:
    folder = bench.folder / "configs" / "devices"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "board.yaml").write_text(FILES.format(emulated=emulated))


def test_a_run_on_a_board_whose_file_calls_it_emulated_reports_no_time_and_still_ships(bench):
    write_device(bench, "true")
    path = bench.experiment("ready.tflite", device="board", budget="{p50_ms: 0.0000001}")
    done = bench.edgepress("run", path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "p50 emulated" in done.stdout
    assert "the board is emulated, so no time was judged, and p50_ms of the budget neither" in " ".join(
        done.stdout.split()
    )
    record = bench.record()
    assert record["device"]["emulated"]
    assert [variant["numbers"]["p50_ns"] for variant in record["variants"]] == [None]


def test_the_devices_file_knows_better_than_the_board(bench):
    write_device(bench, "false")
    done = bench.edgepress("run", bench.experiment("ready.tflite", device="board"))
    assert done.returncode == 0, done.stdout + done.stderr
    record = bench.record()
    assert not record["device"]["emulated"]
    assert record["variants"][0]["numbers"]["p50_ns"]["value"] > 0
