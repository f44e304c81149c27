"""Reports of an emulated board show no time as a time, in any form."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from html.parser import HTMLParser

import pytest
from rich.console import Console

from pipeline.reporting import fleet_html, fleet_markdown, html, markdown
from pipeline.reporting.plot import plot_item
from pipeline.reporting.terminal import RunDisplay, run_summary
from pipeline.results.fleet_store import FleetRun
from pipeline.results.record import RunRecord, VariantRecord
from pipeline.results.store import record_json
from pipeline.results.verdict import judge

A_TIME = re.compile(r"\d\s*(ns|µs|ms|s|min)\b")


def without_times(variant: VariantRecord) -> VariantRecord:
    """The variant as an emulated board leaves it: measured, with nothing that is derived from its times."""
    if variant.numbers is None:
        return variant
    bare = dataclasses.replace(variant.numbers, p50_ns=None, p90_ns=None, load_ns=None, first_invoke_ns=None)
    compared = variant.comparison and dataclasses.replace(variant.comparison, time_ratio=None, speed="emulated")
    return dataclasses.replace(variant, numbers=bare, comparison=compared)


@pytest.fixture
def emulated_record(record: RunRecord) -> RunRecord:
    known = tuple(map(without_times, record.variants))
    device = dataclasses.replace(record.device, emulated=True)
    verdict = judge(known, record.verdict.budget, record.baseline)
    return dataclasses.replace(record, device=device, variants=known, verdict=verdict)


class Words(HTMLParser):
    """The text of a page, without what stands in scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.words, self._raw = [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self._raw = tag in ("script", "style")

    def handle_endtag(self, tag):
        self._raw = False

    def handle_data(self, data):
        if not self._raw:
            self.words.append(data)


def on_a_terminal(record: RunRecord, width: int) -> str:
    console = Console(record=True, width=width, file=io.StringIO())
    console.print(run_summary(record, width))
    return console.export_text()


def as_text(record: RunRecord) -> dict[str, str]:
    return {
        "narrow terminal": on_a_terminal(record, 80),
        "wide terminal": on_a_terminal(record, 200),
        "Markdown": markdown.render(record),
        "HTML": " ".join(Words(html.render(record)).words),
    }


def test_the_same_report_of_a_real_board_has_times(record):
    assert all(A_TIME.search(text) for text in as_text(record).values())


def test_no_report_of_an_emulated_board_has_a_time_in_it(emulated_record):
    for form, text in as_text(emulated_record).items():
        found = A_TIME.search(text)
        assert found is None, f"{form}: {text[max(0, found.start() - 60) : found.end() + 20]}"
        assert "emulated" in text, form
        assert "faster" not in text and "slower" not in text.replace("hundreds of times slower", ""), form


def test_every_time_of_a_variant_is_said_to_be_emulated(emulated_record):
    [row] = [line for line in markdown.render(emulated_record).splitlines() if line.startswith("| **int8**")]
    assert row == (
        "| **int8** | VALID | meets it (p50_ms not judged) | 104.4 KiB | 82.4 KiB | 92.72 % (92.20–93.21) "
        "| −0.19 pp (worse, p = 0.021) | emulated | emulated | emulated | emulated | emulated | emulated | 58.5 MiB "
        "| 31.4 dB (largest difference 0.08) | litert 2.3.0 (xnnpack, 1 thread) |"
    )


def test_conditions_say_that_the_board_is_emulated(emulated_record):
    text = markdown.render(emulated_record)
    assert "- **device**: local (Intel(R) Xeon(R) Platinum), transport local, emulated\n" in text
    assert "- **verdict**: of the VALID variants within the budget the smallest: no time is judged\n" in text


def test_the_verdict_speaks_of_no_time(emulated_record):
    assert emulated_record.verdict.chosen == "int8"
    assert "so no time was judged, and p50_ms of the budget neither" in on_a_terminal(emulated_record, 200)


def test_there_is_no_plot_over_a_latency_that_is_none(emulated_record):
    assert plot_item(emulated_record) is None
    assert "The board is emulated and has no times, so there is nothing to draw." in html.render(emulated_record)


def test_a_run_under_way_shows_no_time_of_an_emulated_board(emulated_record):
    console = Console(file=io.StringIO(), width=80, force_terminal=False)
    with RunDisplay(console, "top1") as display:
        display.variant(emulated_record.variants[3])
    assert console.file.getvalue() == (
        "int8: VALID, raw size 104.4 KiB, gzip size 82.4 KiB, top-1 92.72 % (92.20–93.21), change −0.19 pp "
        "(worse, p = 0.021), p50 emulated\n"
    )


def test_what_is_derived_from_times_is_null_in_the_json(emulated_record):
    [_, _, _, int8, _] = json.loads(record_json(emulated_record))["variants"]
    numbers = int8["numbers"]
    assert [numbers[key] for key in ("p50_ns", "p90_ns", "p99_ns", "load_ns", "first_invoke_ns")] == [None] * 5
    assert int8["comparison"]["time_ratio"] is None


def several(fleet: FleetRun, **runs: RunRecord) -> dict[str, str]:
    """The reports of several devices, of which these are other ones."""
    changed = dataclasses.replace(
        fleet, runs={**fleet.runs, **{name.replace("_", "-"): run for name, run in runs.items()}}
    )
    return {"Markdown": fleet_markdown.render(changed), "HTML": " ".join(Words(fleet_html.render(changed)).words)}


@pytest.mark.parametrize("place", ["pi_a", "pi_b"])
def test_with_an_emulated_board_among_several_both_kinds_of_numbers_are_explained(fleet, emulated_record, place):
    for text in several(fleet, **{place: emulated_record}).values():
        assert "time of one inference alone" in text
        assert "a program carries out this board's instructions" in text


def test_of_several_boards_that_are_all_emulated_no_variant_has_a_fastest_time(fleet, emulated_record):
    text = several(fleet, pi_a=emulated_record, pi_b=emulated_record)["Markdown"]
    assert "| **int8** | 2 of 2 | 104.4 KiB | 82.4 KiB | emulated | emulated |" in text
    assert "time of one inference alone" not in text
