"""``report.html`` of a run on several devices: one file that opens offline, with all devices in it."""

from __future__ import annotations

from pipeline.reporting import format, plot, sections
from pipeline.reporting.columns import columns
from pipeline.reporting.fleet_columns import device_columns, failures, fleet_columns, variant_names
from pipeline.reporting.html import bokeh_scripts, environment
from pipeline.results.fleet_store import FleetRun


def render(fleet: FleetRun) -> str:
    """Return the whole page; scripts, styles and data are in it, and it loads nothing."""
    record, first = fleet.record, next(iter(fleet.runs.values()), None)
    item = plot.fleet_item(fleet)
    return (
        environment()
        .get_template("fleet.html.j2")
        .render(
            record=record,
            runs=fleet.runs,
            first=first,
            title=f"{record.experiment} on {format.count(len(record.devices), 'device')}",
            device_columns=device_columns(record.metric),
            fleet_columns=fleet_columns(fleet) if first else (),
            names=variant_names(fleet),
            columns=columns(first.metric, first.verdict) if first else (),
            columns_of={name: columns(run.metric, run.verdict) for name, run in fleet.runs.items()},
            budget=first.verdict.budget if first else (),
            colours=plot.colours(first) if first else {},
            label=plot.label,
            failures=failures(fleet),
            conditions=sections.conditions,
            problems=sections.problems,
            details=sections.details,
            reading=sections.reading_of_several(list(fleet.runs.values())) if first else (),
            exact_bytes=format.exact_bytes,
            item=item,
            bokeh=bokeh_scripts() if item else (),
        )
    )
