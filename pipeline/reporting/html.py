"""``report.html``: one file that opens anywhere, offline, with the plot, the sortable table and the verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.reporting import columns, format, plot, sections
from pipeline.results.record import RunRecord

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup


def render(record: RunRecord) -> str:
    """Return the whole page; scripts, styles and data are in it, and it loads nothing."""
    item = plot.plot_item(record)
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            record=record,
            title=f"{record.experiment} on {record.device_name}",
            columns=columns.columns(record.metric, record.verdict),
            colours=plot.colours(record),
            drawn=[point.variant.name for point in plot.drawn(record)],
            conditions=sections.conditions(record),
            reading=sections.reading(record),
            problems=sections.problems(record),
            details=sections.details(record),
            exact_bytes=format.exact_bytes,
            item=item,
            bokeh=bokeh_scripts() if item else (),
        )
    )


def environment() -> Environment:
    """Return what the pages are rendered by: everything is escaped, and what is not there is an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    made = Environment(
        loader=PackageLoader("pipeline.reporting"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # Bokeh's reader knows an object only from where it first stands: the keys must keep their order.
    made.policies["json.dumps_kwargs"] = {"sort_keys": False}
    return made


def bokeh_scripts() -> tuple[Markup, ...]:
    """Return BokehJS without its widgets, tables and MathJax: 1.3 MB that the page carries along."""
    from bokeh.resources import Resources
    from markupsafe import Markup

    return tuple(Markup(script) for script in Resources(mode="inline", components=["bokeh"]).js_raw)  # noqa: S704
