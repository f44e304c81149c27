"""``report.md`` of a run on several devices: the verdict, the devices, the variants, and every result."""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.reporting import format
from pipeline.reporting.columns import Cell, columns
from pipeline.reporting.fleet_columns import device_columns, failures, fleet_columns, variant_names
from pipeline.reporting.markdown import budget_section, escape, listed, result_cell, table
from pipeline.reporting.sections import details, problems, reading_of_several
from pipeline.results.fleet_store import FleetRun
from pipeline.results.record import RunRecord, VariantRecord


def render(fleet: FleetRun) -> str:
    """Return the whole report in GitHub's Markdown, ending with a newline."""
    record = fleet.record
    first = next(iter(fleet.runs.values()), None)
    sections = (
        f"# {escape(record.experiment)} on {format.count(len(record.devices), 'device')}",
        f"**{escape(record.verdict.reason)}.**",
        _devices(fleet),
        _failures(fleet),
        _variants(fleet),
        _results(fleet),
        budget_section(first) if first else "",
        *(_device(name, run) for name, run in fleet.runs.items()),
        "## How to read a number\n\n" + listed(reading_of_several(list(fleet.runs.values()))) if first else "",
    )
    return "\n\n".join(section for section in sections if section) + "\n"


def _devices(fleet: FleetRun) -> str:
    shown = device_columns(fleet.record.metric)
    rows = (
        [_device_cell(column.key, column.cell(outcome, fleet.runs.get(outcome.device))) for column in shown]
        for outcome in fleet.record.devices
    )
    return "## Devices\n\n" + table(((column.heading, column.numeric) for column in shown), rows)


def _device_cell(key: str, cell: Cell) -> str:
    return escape(cell.text if key == "status" else str(cell))


def _failures(fleet: FleetRun) -> str:
    found = failures(fleet)
    return "## Not measured\n\n" + listed((f"{name} {kind}", said) for name, kind, said in found) if found else ""


def _variants(fleet: FleetRun) -> str:
    if not fleet.runs:
        return ""
    shown, chosen = fleet_columns(fleet), fleet.record.verdict.chosen
    rows = (
        [
            f"**{escape(name)}**" if column.key == "variant" and name == chosen else escape(str(column.cell(name)))
            for column in shown
        ]
        for name in variant_names(fleet)
    )
    return "## Variants\n\n" + table(((column.heading, column.numeric) for column in shown), rows)


def _results(fleet: FleetRun) -> str:
    runs = fleet.runs
    if not runs:
        return ""
    first = next(iter(runs.values()))
    shown = columns(first.metric, first.verdict)
    heads = [("device", False), *((column.heading, column.numeric) for column in shown)]
    rows = ([escape(name), *_cells(run, variant)] for name, run in runs.items() for variant in run.variants)
    return "## Results\n\n" + table(heads, rows)


def _cells(run: RunRecord, variant: VariantRecord) -> Iterable[str]:
    return (result_cell(column, variant, run.verdict.chosen) for column in columns(run.metric, run.verdict))


def _device(name: str, run: RunRecord) -> str:
    found = [(f"{variant} {status}", why or format.NONE) for variant, status, why in problems(run)]
    notes = next((lines for title, lines in details(run) if title == "Notes"), ())
    link = f"[devices/{name}/report.md](devices/{name}/report.md)"
    parts = (f"## {escape(name)}", f"{escape(run.verdict.reason)}. All of it: {link}", listed(found), listed(notes))
    return "\n\n".join(part for part in parts if part)
