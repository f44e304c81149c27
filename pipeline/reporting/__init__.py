"""Reporting: the terminal, Markdown and HTML, drawn from one ``RunRecord``, or from those of several devices."""

from __future__ import annotations

from pathlib import Path

from pipeline.results.fleet_store import FleetRun
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
    from pipeline.results.store import REPORT_JSON, record_json

    return _written(
        {
            folder / REPORT_JSON: record_json(record),
            folder / REPORT_MD: markdown.render(record),
            folder / REPORT_HTML: html.render(record),
        }
    )


def write_device_reports(record: RunRecord, folder: Path) -> list[Path]:
    """Write one device's ``report.json`` and ``report.md``; the page of the whole run has it too.

    Raises:
        StorageError: if the disk is full or refuses.
    """
    from pipeline.reporting import markdown
    from pipeline.results.store import REPORT_JSON, record_json

    return _written({folder / REPORT_JSON: record_json(record), folder / REPORT_MD: markdown.render(record)})


def write_fleet_reports(fleet: FleetRun, folder: Path) -> list[Path]:
    """Write ``fleet.json``, ``report.md`` and ``report.html`` of a run on several devices into ``folder``.

    Raises:
        StorageError: if the disk is full or refuses.
    """
    from pipeline.reporting import fleet_html, fleet_markdown
    from pipeline.results.fleet_store import FLEET_JSON, fleet_json

    return _written(
        {
            folder / FLEET_JSON: fleet_json(fleet.record),
            folder / REPORT_MD: fleet_markdown.render(fleet),
            folder / REPORT_HTML: fleet_html.render(fleet),
        }
    )


def _written(texts: dict[Path, str]) -> list[Path]:
    from pipeline.results.store import write_whole

    for path, text in texts.items():
        write_whole(path, text)
    return list(texts)
