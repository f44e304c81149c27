"""All devices while they are measured: a table on a terminal, lines elsewhere."""

import dataclasses
import io

import pytest
from rich.console import Console

from pipeline.reporting.live_devices import OTHER_LINES, LiveDevices
from pipeline.reporting.progress import NoProgress, Progress
from pipeline.reporting.terminal import RunDisplay


def plain_console():
    return Console(file=io.StringIO(), width=80, force_terminal=False)


def table(devices, height=40):
    console = Console(record=True, width=100, file=io.StringIO())
    console.print(devices.table(height))
    return console.export_text()


def test_without_a_terminal_each_end_of_a_stage_is_a_line_with_its_device(record):
    console = plain_console()
    with RunDisplay(console, "top1") as display:
        first, second = display.device("pi-a"), display.device("pi-b")
        push = first.stage("push", unit="bytes")
        push.update(5, 10)
        push.finish("10 bytes sent")
        push.finish("twice")
        first.variant(record.variants[3])
        first.variant(dataclasses.replace(record.variants[3], invalid_reasons=("hot",)))
        first.variant(record.variants[2])
        second.stage("failed").finish("pi-b: connection refused")
        first.stage("done").finish("int8 may ship")
    assert console.file.getvalue().splitlines() == [
        "pi-a: push: 10 bytes sent (0.0 s)",
        "pi-a: int8: VALID, p50 61.8 µs, 92.72 %",
        "pi-a: int8: INVALID, p50 61.8 µs, 92.72 %",
        "pi-b: failed: pi-b: connection refused",
        "pi-a: done: int8 may ship",
    ]


def test_the_table_shows_bytes_with_rate_and_time_left_and_blocks(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("pipeline.reporting.live_devices.time.monotonic", lambda: now[0])
    devices = LiveDevices(lambda line: None, lines=False)
    devices.add("pi-a").stage("push", unit="bytes").update(2 << 20, 10 << 20)
    devices.add("pi-b").stage("measure", unit="blocks").update(3, 12)
    devices.add("pi-c")
    now[0] += 2.0
    rows = {line.split()[0]: line for line in table(devices).splitlines() if line.strip()}
    assert "2.0 MiB/10.0 MiB 1.0 MiB/s 8.0 s left" in rows["pi-a"]
    assert "3/12 blocks 6.0 s left" in rows["pi-b"]
    assert "waiting" in rows["pi-c"]


def test_failures_come_first_and_what_does_not_fit_is_counted():
    said = []
    devices = LiveDevices(said.append, lines=False)
    boards = [devices.add(f"pi-{number:02}") for number in range(64)]
    for board in boards[:30]:
        board.stage("done").finish("int8 may ship")
    for board in boards[30:50]:
        board.stage("measure", 10, "blocks").update(1)
    boards[63].stage("failed").finish("it is down")
    lines = [line for line in table(devices, height=24).splitlines() if line.strip()]
    assert len(lines) <= 24
    assert lines[2].split()[:2] == ["pi-63", "failed"]
    assert [line.split()[1] for line in lines[3 : 3 + 24 - OTHER_LINES - 1]] == ["measure"] * (24 - OTHER_LINES - 1)
    assert lines[-1].strip() == "and 3 under way, 13 waiting, 30 done"
    assert len(said) == 31, "what has ended is a line that stays"


def test_on_a_terminal_the_rows_of_devices_move(record):
    console = Console(file=io.StringIO(), width=100, height=40, force_terminal=True, color_system=None)
    with RunDisplay(console, "top1") as display:
        display.variant(record.variants[3])
        display.device("pi-a").stage("measure", 10, "blocks").update(4)
        display._live.refresh()
        assert "4/10 blocks" in console.file.getvalue()
        assert "\x1b[?25l" in console.file.getvalue()


def test_an_interrupted_terminal_keeps_the_rows_known_by_then():
    console = Console(file=io.StringIO(), width=100, height=40, force_terminal=True, color_system=None)
    with pytest.raises(KeyboardInterrupt), RunDisplay(console, "top1") as display:
        display.device("pi-a").stage("done").finish("int8 may ship")
        raise KeyboardInterrupt
    assert "int8 may ship" in console.file.getvalue().splitlines()[-2]


@pytest.mark.parametrize("make", [NoProgress, lambda: RunDisplay(plain_console(), "top1")])
def test_a_device_s_part_satisfies_the_seam_too(make, record):
    progress: Progress = make().device("pi-a")
    stage = progress.stage("measure", 4, "blocks")
    stage.update(1)
    stage.advance(2)
    stage.finish("done")
    progress.variant(record.variants[0])
    progress.device("pi-b").stage("push").finish()
