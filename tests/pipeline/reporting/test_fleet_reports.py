"""The reports of a run on several devices: terminal, Markdown, HTML."""

import io
import re
from html.parser import HTMLParser

from rich.console import Console

from pipeline.reporting import fleet_html, fleet_markdown, write_fleet_reports
from pipeline.reporting.fleet_terminal import fleet_summary
from pipeline.reporting.plot import fleet_item


class Page(HTMLParser):
    """The rows of each table, and the texts of the page."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.tags, self.text = {}, [], ""
        self._table = None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag == "table":
            self._table = self.tables.setdefault(dict(attributes)["id"], [])
        if tag == "tr":
            self._table.append([])
        if tag in ("td", "th"):
            self._table[-1].append("")

    def handle_data(self, data):
        self.text += data
        if self._table and self._table[-1]:
            self._table[-1][-1] += data.strip()


def printed(fleet, width=80):
    console = Console(record=True, width=width, file=io.StringIO())
    console.print(fleet_summary(fleet))
    return console.export_text()


def test_the_terminal_has_a_line_a_device_and_a_line_a_variant_and_the_verdict(fleet):
    text = printed(fleet)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    rows = {line.split()[0]: line for line in lines if line.strip()}
    assert "VALID" in rows["pi-a"] and "int8" in rows["pi-a"] and "61.8 µs" in rows["pi-a"] and "3 of 5" in rows["pi-a"]
    assert "185 µs" in rows["pi-b"]
    assert re.search(r"^ ?pi-c +FAILED +— ", text, re.MULTILINE)
    assert "pi-c FAILED: unreachable: pi-c (pi@pi-c:22): <script>connection refused" in " ".join(text.split())
    assert re.search(r"int8 +2 of 2 .* 61.8 µs \(pi-a\) +185 µs \(pi-b\)", text)
    assert " ".join(text.split()).endswith(fleet.record.verdict.reason)


def test_markdown_has_devices_failures_variants_and_every_result(fleet):
    text = fleet_markdown.render(fleet)
    assert text.startswith(f"# fashion_mnist on 3 devices\n\n**{fleet.record.verdict.reason}.**\n")
    for heading in ("Devices", "Not measured", "Variants", "Results", "Budget", "pi-a", "pi-b", "How to read a number"):
        assert f"\n## {heading}\n" in text
    assert "- **pi-c unreachable**: pi-c (pi@pi-c:22): \\<script>connection refused\\</script> \\| check" in text
    assert text.count("\n| pi-a | ") == 6 and text.count("\n| pi-b | ") == 6
    assert "[devices/pi-a/report.md](devices/pi-a/report.md)" in text
    assert "<script" not in text.replace("\\<script", "")


def test_the_page_has_every_device_and_loads_nothing(fleet):
    text = fleet_html.render(fleet)
    page = Page(text)
    assert [row[0] for row in page.tables["devices"][1:]] == ["pi-a", "pi-b", "pi-c"]
    assert page.tables["devices"][3][1] == "FAILED"
    assert [row[0] for row in page.tables["variants"][1:]] == [v.name for v in fleet.runs["pi-a"].variants[:3]] + [
        "int8chosen", "pruned_int8",
    ]  # fmt: skip
    assert [row[0] for row in page.tables["results"][1:]] == ["pi-a"] * 5 + ["pi-b"] * 5
    assert page.tags.count("details") == 2
    assert "connection refused" in page.text
    assert "<script>connection" not in text
    assert not re.search(r"""(?:src|href)=["'](?!data:)""", text.partition("<script>")[0])


def test_the_plot_has_a_bubble_for_each_variant_on_each_device_and_a_ring_for_each_choice(fleet):
    item = fleet_item(fleet)
    shown = str(item)
    for label in ("pi-a: int8", "pi-b: int8", "pi-a: float32", "pi-b: pruned_int8"):
        assert label in shown
    assert "dynamic_range" not in shown


def test_without_any_device_measured_the_reports_say_why(fleet_without_results, tmp_path):
    write_fleet_reports(fleet_without_results, tmp_path)
    for page in ("report.md", "report.html"):
        text = (tmp_path / page).read_text()
        assert "none of 2 devices was measured" in text and "pi-b has no room" in text
    assert "pi-a FAILED: full: pi-a has no room" in printed(fleet_without_results)
