from __future__ import annotations

import dataclasses
import errno
import json
import os
import re
from html.parser import HTMLParser

import pytest

from pipeline.errors import StorageError
from pipeline.reporting import write_reports
from pipeline.reporting.html import render
from pipeline.reporting.plot import LARGEST_DIAMETER_PX, plot_item
from pipeline.results.record import Estimate

LOADING = {"src", "href", "srcset", "data", "poster", "action"}


class Page(HTMLParser):
    """The elements and texts of a page, without what stands in scripts and styles."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.loads, self.words, self._raw = [], [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.loads += [value for name, value in attrs if name in LOADING]
        self._raw = tag in ("script", "style")

    def handle_endtag(self, tag):
        self._raw = False

    def handle_data(self, data):
        if not self._raw:
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def test_page_loads_nothing(record):
    text = render(record)
    assert Page(text).loads == ["data:,"]
    assert "default-src 'none'" in text
    assert not re.search(r"@import|url\(\s*['\"]?https?:", text)


def test_page_is_at_most_one_and_a_half_megabytes(record):
    assert len(render(record).encode()) <= 1_500_000


def test_page_has_every_number(record):
    text = Page(render(record)).text
    for expected in (
        record.verdict.reason, "104.4 KiB", "82.4 KiB", "92.72 %", "92.20–93.21", "−0.19 pp", "61.8 µs", "60.9–63.0",
        "66.7 µs", "64.9–69.8", "1.91 ms", "402 µs", "58.5 MiB", "litert 2.3.0", "VALID", "Intel(R) Xeon(R) Platinum",
        "throttled in 3 of 5 blocks", "unresolved custom op", "size 353.6 KiB > 200 KiB",
    ):  # fmt: skip
        assert expected in text, expected


def test_exact_bytes_are_told_on_hovering_a_size(record):
    assert {"106,928 bytes", "84,417 bytes"} <= {attrs.get("title") for _, attrs in Page(render(record)).tags}


def test_the_chosen_row_is_marked(record):
    rows = [attrs for tag, attrs in Page(render(record)).tags if tag == "tr" and "data-variant" in attrs]
    assert [row["data-variant"] for row in rows if row["class"] == "chosen"] == ["int8"]


def test_names_cannot_become_elements_or_scripts(hostile_record):
    text = render(hostile_record)
    assert "<script>window.hacked" not in text
    assert "\\u003cscript\\u003ewindow.hacked=1" in text, "the plot's data carry the name, escaped"
    assert "<script>window.hacked=1</script>" in Page(text).text


def test_a_run_without_numbers_has_a_page_without_a_plot(nothing_measured):
    text = render(nothing_measured)
    assert "nothing to draw" in text and "BokehJS" not in text and len(text) < 50_000


def figures(item):
    return json.dumps(item)


def with_p50(record, ns):
    """The record with the p50 of its first variant set."""
    first = record.variants[0]
    slow = dataclasses.replace(first.numbers, p50_ns=Estimate(ns))
    return dataclasses.replace(record, variants=(dataclasses.replace(first, numbers=slow), *record.variants[1:]))


def test_latency_is_logarithmic_when_it_spans_more_than_ten_times(record):
    assert "LogScale" not in figures(plot_item(record))
    assert "LogScale" in figures(plot_item(with_p50(record, 61_800.0 * 10.5)))


def test_a_latency_of_zero_cannot_be_logarithmic(record):
    assert "LogScale" not in figures(plot_item(with_p50(record, 0.0)))


def test_area_of_a_bubble_is_in_proportion_to_the_raw_size(record):
    source = re.search(r'\["diameter", \[(.*?)\]\]', figures(plot_item(record)))
    assert source
    largest, *_, pruned = (float(text) for text in source[1].split(", "))
    assert largest == LARGEST_DIAMETER_PX
    assert (pruned / largest) ** 2 == pytest.approx(106_928 / 362_104)


def test_three_reports_are_written(record, tmp_path):
    paths = write_reports(record, tmp_path / "runs" / "1")
    assert [path.name for path in paths] == ["report.json", "report.md", "report.html"]
    assert all(path.stat().st_size for path in paths)
    assert sorted(paths) == sorted((tmp_path / "runs" / "1").iterdir())


def test_a_full_disk_leaves_no_half_report(record, tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="disk full while writing"):
        write_reports(record, tmp_path)
    assert list(tmp_path.iterdir()) == []
