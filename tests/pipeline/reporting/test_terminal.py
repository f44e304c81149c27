from __future__ import annotations

import io

import pytest
from rich.console import Console

from pipeline.reporting.progress import NoProgress, Progress
from pipeline.reporting.terminal import RunDisplay, results_table, run_summary


def printed(renderable, width):
    console = Console(record=True, width=width, file=io.StringIO())
    console.print(renderable)
    return console.export_text()


def plain_console(width=80):
    return Console(file=io.StringIO(), width=width, force_terminal=False)


def test_table_fits_80_columns_with_one_line_a_variant(record):
    lines = printed(results_table(record), 80).splitlines()
    assert max(map(len, lines)) <= 80
    for name in ("float32", "float16", "dynamic_range", "int8", "pruned_int8"):
        assert sum(line.split()[:1] == [name] for line in lines) == 1
    assert "int8           VALID    104.4 KiB   82.4 KiB  92.72 %  −0.19 pp  61.8 µs" in "\n".join(lines)


def test_wide_table_has_intervals(record):
    text = printed(results_table(record, width=140), 140)
    assert "92.72 % (92.20–93.21)" in text and "2.40× faster (2.33–2.50)" in text and "58.5 MiB" in text
    assert max(map(len, text.splitlines())) <= 140


def test_summary_ends_with_reasons_and_verdict(record):
    text = " ".join(printed(run_summary(record), 80).split())
    assert "pruned_int8 INVALID: throttled in 3 of 5 blocks" in text
    assert "dynamic_range FAILED: load: litert cannot load it" in text
    assert "int8 note: 2 disturbed blocks taken again" in text
    assert text.endswith(record.verdict.reason)


def test_markup_in_names_is_printed_as_it_is(hostile_record):
    assert "<script>" in printed(results_table(hostile_record), 200)


def test_without_a_terminal_stages_are_single_plain_lines(record):
    console = plain_console()
    with RunDisplay(console, "top1") as display:
        stage = display.stage("compress int8", 3, "steps")
        stage.advance()
        stage.update(2, 4)
        stage.finish("from the cache")
        stage.finish()
        display.variant(record.variants[3])
    lines = console.file.getvalue().splitlines()
    assert lines[:2] == ["compress int8: started", "compress int8: from the cache (0.0 s)"]
    assert lines[2] == (
        "int8: VALID, raw size 104.4 KiB, gzip size 82.4 KiB, top-1 92.72 % (92.20–93.21), change −0.19 pp "
        "(worse, p = 0.021), p50 61.8 µs (60.9–63.0)"
    )
    assert len(lines) == 3 and "\x1b" not in console.file.getvalue()


def test_a_failed_variant_says_why_in_its_line(record):
    console = plain_console()
    with RunDisplay(console, "top1") as display:
        display.variant(record.variants[2])
    assert "FAILED (load: litert cannot load it" in console.file.getvalue()


def test_a_stage_cut_short_is_said_to_be_stopped():
    console = plain_console()
    with pytest.raises(KeyboardInterrupt), RunDisplay(console, "top1") as display:
        display.stage("measure", 5, "blocks")
        raise KeyboardInterrupt
    assert "measure: stopped" in console.file.getvalue()


def test_on_a_terminal_bars_move_and_the_table_grows(record):
    console = Console(file=io.StringIO(), width=100, height=40, force_terminal=True, color_system="truecolor")
    with RunDisplay(console, "top1") as display:
        display.stage("push int8", 10 * 2**20, "bytes").update(5 * 2**20)
        display.stage("measure", 5, "blocks").advance(2)
        display.variant(record.variants[3])
        display._live.refresh()
    text = console.file.getvalue()
    assert "5.0 MiB/10.0 MiB" in text and "2/5 blocks" in text and "61.8 µs" in text
    assert "\x1b[?25h" in text, "the cursor is shown again"


def test_an_interrupted_terminal_keeps_the_table_known_by_then(record):
    console = Console(file=io.StringIO(), width=100, height=40, force_terminal=True, color_system=None)
    with pytest.raises(KeyboardInterrupt), RunDisplay(console, "top1") as display:
        display.variant(record.variants[3])
        raise KeyboardInterrupt
    assert "61.8 µs" in console.file.getvalue().splitlines()[-2]


def test_a_dumb_terminal_gets_plain_lines(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    console = Console(file=io.StringIO(), force_terminal=True, color_system=None)
    with RunDisplay(console, "top1") as display:
        display.stage("fetch").finish()
    assert console.file.getvalue() == "fetch: started\nfetch: done (0.0 s)\n"


@pytest.mark.parametrize("make", [NoProgress, lambda: RunDisplay(plain_console(), "top1")])
def test_displays_satisfy_the_seam(make, record):
    progress: Progress = make()
    stage = progress.stage("measure", None, "blocks")
    stage.update(1)
    stage.advance(2)
    stage.finish("done")
    progress.variant(record.variants[0])
