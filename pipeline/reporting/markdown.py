"""``report.md``: the verdict, the table, what went wrong, and how to read it."""

from __future__ import annotations

import re
from collections.abc import Iterable

from pipeline.reporting import format
from pipeline.reporting.columns import Cell, Column, columns
from pipeline.reporting.sections import conditions, details, problems, reading
from pipeline.results.record import RunRecord, VariantRecord

_SPECIAL = re.compile(r"([\\`*\[\]<|])")


def render(record: RunRecord) -> str:
    """Return the whole report in GitHub's Markdown, ending with a newline."""
    sections = (
        f"# {_escape(record.experiment)} on {_escape(record.device_name)}",
        f"**{_escape(record.verdict.reason)}.**",
        _results(record),
        _budget(record),
        _problems(record),
        *(f"## {title}\n\n{_list(lines)}" for title, lines in details(record)),
        "## Conditions\n\n" + _list(conditions(record)),
        "## How to read a number\n\n" + _list(reading(record)),
    )
    return "\n\n".join(section for section in sections if section) + "\n"


def _results(record: RunRecord) -> str:
    shown = columns(record.metric, record.verdict)
    head = _row(column.heading for column in shown)
    rule = _row("---:" if column.numeric else "---" for column in shown)
    rows = (_row(_cell(column, variant, record.verdict.chosen) for column in shown) for variant in record.variants)
    return "\n".join((head, rule, *rows))


def _cell(column: Column, variant: VariantRecord, chosen: str | None) -> str:
    cell = column.cell(variant)
    if column.key == "variant":
        name = _escape(cell.text)
        return f"**{name}**" if variant.name == chosen else name
    return _escape(str(Cell(cell.text) if column.key == "status" else cell))


def _budget(record: RunRecord) -> str:
    if not record.verdict.budget:
        return ""
    limits = ((line.name, f"at most {line.limit:g}") for line in record.verdict.budget)
    return "## Budget\n\n" + _list(limits)


def _problems(record: RunRecord) -> str:
    found = problems(record)
    if not found:
        return ""
    return "## Not VALID\n\n" + _list((f"{name} {status}", why or format.NONE) for name, status, why in found)


def _list(items: Iterable[tuple[str, str]]) -> str:
    return "\n".join(f"- **{_escape(label)}**: {_escape(text)}" for label, text in items)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escape(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", format.one_line(text))
