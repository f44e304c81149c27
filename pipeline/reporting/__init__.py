"""Reporting: the terminal, Markdown and HTML, drawn from one ``RunRecord``."""

from __future__ import annotations

from pathlib import Path

from pipeline.results.record import RunRecord

REPORT_MD = "report.md"
REPORT_HTML = "report.html"


def write_reports(record: RunRecord, folder: Path) -> list[Path]:
    """Write ``report.json``, ``report.md`` and ``report.html`` into ``folder`` and return their paths.

    Everything is rendered before anything is written, and each file appears whole or not at all.

    Raises:
        StorageError: if the disk is full or refuses.
    """
    from pipeline.reporting import html, markdown
    from pipeline.results.store import REPORT_JSON, record_json, write_whole

    texts = {
        folder / REPORT_JSON: record_json(record),
        folder / REPORT_MD: markdown.render(record),
        folder / REPORT_HTML: html.render(record),
    }
    for path, text in texts.items():
        write_whole(path, text)
    return list(texts)
