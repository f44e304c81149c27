"""What the terminal shows at the end of a run on several devices: devices, variants, what went wrong, the verdict."""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from pipeline.reporting.columns import FAILED, INVALID, VALID, Cell
from pipeline.reporting.fleet_columns import MISSED, device_columns, device_status, fleet_columns, variant_names
from pipeline.results.fleet_store import FleetRun

_COLOURS = {VALID: "green", MISSED: "yellow", INVALID: "yellow", FAILED: "red"}
_SHOWN = ("variant", "ships", "raw", "fastest", "slowest")
_DETAILED = ("fastest", "slowest")


def fleet_summary(fleet: FleetRun) -> RenderableType:
    """Return what is printed at the end of a run."""
    statuses = ((o.device, device_status(o, fleet.runs.get(o.device))) for o in fleet.record.devices)
    reasons = [Text(f"{name} {cell.text}: {cell.detail}") for name, cell in statuses if cell.text != VALID]
    verdict = fleet.record.verdict
    said = Text(verdict.reason, style="bold" if verdict.chosen else "bold red")
    variants = [_variants(fleet)] if fleet.runs else []
    return Group(_devices(fleet), *variants, *reasons, Padding(said, (1, 0, 0, 0)))


def _devices(fleet: FleetRun) -> Table:
    shown = device_columns(fleet.record.metric)
    table = _table([(column.heading, column.numeric) for column in shown])
    for outcome in fleet.record.devices:
        cells = (column.cell(outcome, fleet.runs.get(outcome.device)) for column in shown)
        table.add_row(*(Text(cell.text, style=_COLOURS.get(cell.text, "")) for cell in cells))
    return table


def _variants(fleet: FleetRun) -> Table:
    shown = [column for column in fleet_columns(fleet) if column.key in _SHOWN]
    table = _table([(column.heading, column.numeric) for column in shown])
    for name in variant_names(fleet):
        cells = (Text(_text(column.key, column.cell(name))) for column in shown)
        table.add_row(*cells, style="bold" if name == fleet.record.verdict.chosen else "")
    return table


def _text(key: str, cell: Cell) -> str:
    return str(cell) if key in _DETAILED else cell.text


def _table(heads: list[tuple[str, bool]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for heading, numeric in heads:
        table.add_column(heading, justify="right" if numeric else "left", overflow="fold")
    return table
