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
        f"# {escape(record.experiment)} on {escape(record.device_name)}",
        f"**{escape(record.verdict.reason)}.**",
        _results(record),
        budget_section(record),
        _problems(record),
        *(f"## {title}\n\n{listed(lines)}" for title, lines in details(record)),
        "## Conditions\n\n" + listed(conditions(record)),
        "## How to read a number\n\n" + listed(reading(record)),
    )
    return "\n\n".join(section for section in sections if section) + "\n"


def table(heads: Iterable[tuple[str, bool]], rows: Iterable[Iterable[str]]) -> str:
    """Return a table of cells that are escaped already; ``heads`` are headings, and whether numbers stand below."""
    columns = list(heads)
    rule = ("---:" if numeric else "---" for _, numeric in columns)
    return "\n".join((_row(heading for heading, _ in columns), _row(rule), *map(_row, rows)))


def _results(record: RunRecord) -> str:
    shown = columns(record.metric, record.verdict)
    rows = ((result_cell(column, variant, record.verdict.chosen) for column in shown) for variant in record.variants)
    return table(((column.heading, column.numeric) for column in shown), rows)


def result_cell(column: Column, variant: VariantRecord, chosen: str | None) -> str:
    """Return one cell of the table of results, the name of the ``chosen`` variant in bold."""
    cell = column.cell(variant)
    if column.key == "variant":
        name = escape(cell.text)
        return f"**{name}**" if variant.name == chosen else name
    return escape(str(Cell(cell.text) if column.key == "status" else cell))


def budget_section(record: RunRecord) -> str:
    """Return the limits, if there are any."""
    if not record.verdict.budget:
        return ""
    limits = ((line.name, f"at most {line.limit:g}") for line in record.verdict.budget)
    return "## Budget\n\n" + listed(limits)


def _problems(record: RunRecord) -> str:
    found = problems(record)
    if not found:
        return ""
    return "## Not VALID\n\n" + listed((f"{name} {status}", why or format.NONE) for name, status, why in found)


def listed(items: Iterable[tuple[str, str]]) -> str:
    """Return (label, text) as a list."""
    return "\n".join(f"- **{escape(label)}**: {escape(text)}" for label, text in items)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def escape(text: str) -> str:
    """Return ``text`` on one line, with what Markdown would take for more than text escaped."""
    return _SPECIAL.sub(r"\\\1", format.one_line(text))
