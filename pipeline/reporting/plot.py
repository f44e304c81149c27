"""The plot of a run: accuracy over latency, with size as area. Bokeh, drawn in the browser from data in the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Any

from pipeline.reporting import format
from pipeline.reporting.columns import Column, columns
from pipeline.results.fleet_store import FleetRun
from pipeline.results.record import Estimate, RunRecord, VariantRecord, Verdict

TARGET = "plot"
LOG_FROM_RATIO = 10
LARGEST_DIAMETER_PX = 44
SMALLEST_DIAMETER_PX = 7

# Okabe and Ito's palette without its yellow and black: told apart by colour-blind readers, on light and on dark.
PALETTE = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8c8c8c")


@dataclass(frozen=True)
class Point:
    """A variant with a place in the plot, and how it is called there."""

    label: str
    variant: VariantRecord
    p50_ns: Estimate
    score: Estimate
    colour: str


def colours(record: RunRecord) -> dict[str, str]:
    """Return each variant's colour, the same in the plot and in the table."""
    return {variant.name: PALETTE[i % len(PALETTE)] for i, variant in enumerate(record.variants)}


def drawn(record: RunRecord) -> list[Point]:
    """Return what is in the plot: the variants with a time, VALID or not; of an emulated board, none."""
    colour = colours(record)
    known = ((variant, variant.numbers) for variant in record.variants)
    return [
        Point(variant.name, variant, found.p50_ns, found.score, colour[variant.name])
        for variant, found in known
        if found and found.p50_ns
    ]


def plot_item(record: RunRecord) -> dict[str, Any] | None:
    """Return the plot as the JSON that ``Bokeh.embed.embed_item`` takes; None when no variant has a time."""
    chosen = {record.verdict.chosen} if record.verdict.chosen else set()
    return _item(drawn(record), chosen, record.metric, record.verdict)


def fleet_item(fleet: FleetRun) -> dict[str, Any] | None:
    """Return the plot of all devices: a bubble for each variant on each, named by ``label``, coloured by variant."""
    points: list[Point] = []
    chosen: set[str] = set()
    for device, run in fleet.runs.items():
        points += [replace(point, label=label(device, point.label)) for point in drawn(run)]
        chosen |= {label(device, run.verdict.chosen)} if run.verdict.chosen else set()
    first = next(iter(fleet.runs.values()), None)
    return _item(points, chosen, first.metric, first.verdict) if first else None


def label(device: str, variant: str) -> str:
    """Return how a variant on one of several devices is called."""
    return f"{device}: {variant}"


def _item(points: list[Point], chosen: AbstractSet[str], metric: str, verdict: Verdict) -> dict[str, Any] | None:
    if not points:
        return None
    from bokeh.embed import json_item

    unit = format.time_unit(max(point.p50_ns.value for point in points))
    known = columns(metric, verdict)
    return dict(json_item(_figure(_data(points, known, unit), chosen, known, metric, unit), TARGET))


def _data(points: list[Point], known: Sequence[Column], unit: format.Unit) -> dict[str, list[Any]]:
    largest = max(_size_bytes(point.variant) for point in points)
    rows = []
    for point in points:
        row = {
            "colour": point.colour,
            "alpha": 0.75 if point.variant.valid else 0.12,
            "diameter": _diameter_px(_size_bytes(point.variant), largest),
            **_axis("x", point.p50_ns, unit.size),
            **_axis("y", point.score, 0.01),
        }
        rows.append(row | {column.key: str(column.cell(point.variant)) for column in known} | {"variant": point.label})
    return {key: [row[key] for row in rows] for key in rows[0]}


def _axis(axis: str, estimate: Estimate, unit_size: float) -> dict[str, float]:
    low = math.nan if estimate.low is None else estimate.low / unit_size
    high = math.nan if estimate.high is None else estimate.high / unit_size
    return {axis: estimate.value / unit_size, f"{axis}_low": low, f"{axis}_high": high}


def _size_bytes(variant: VariantRecord) -> int:
    return variant.artifact.size_bytes if variant.artifact else 0


def _diameter_px(size_bytes: int, largest_bytes: int) -> float:
    share = size_bytes / largest_bytes if largest_bytes else 0
    return max(SMALLEST_DIAMETER_PX, LARGEST_DIAMETER_PX * math.sqrt(share))


def _figure(
    data: dict[str, list[Any]], chosen: AbstractSet[str], known: Sequence[Column], metric: str, unit: format.Unit
) -> Any:
    from bokeh.models import ColumnDataSource, HoverTool, TapTool
    from bokeh.plotting import figure

    log = min(data["x"]) > 0 and max(data["x"]) > LOG_FROM_RATIO * min(data["x"])
    plot = figure(
        height=440,
        sizing_mode="stretch_width",
        x_axis_type="log" if log else "linear",
        x_range=_range(data, "x", log),
        y_range=_range(data, "y", log=False),
        x_axis_label=f"p50 latency ({unit.name}{', logarithmic' if log else ''}) — faster is left",
        y_axis_label=f"{format.metric(metric)} (%)",
        toolbar_location=None,
        tools=[],
    )
    source = ColumnDataSource(data, name="variants")
    bubbles = _draw(plot, source, data, chosen)
    tooltips = [(column.heading, f"@{column.key}") for column in known]
    plot.add_tools(HoverTool(renderers=[bubbles], tooltips=tooltips), TapTool(renderers=[bubbles]))
    if log:
        plot.xaxis.ticker = _log_ticks(plot.x_range.start, plot.x_range.end)
    plot.background_fill_color = plot.border_fill_color = plot.outline_line_color = None
    return plot


def _draw(plot: Any, source: Any, data: dict[str, list[Any]], chosen: AbstractSet[str]) -> Any:
    from bokeh.models import TeeHead, Whisker

    for dimension, base, along in (("height", "x", "y"), ("width", "y", "x")):
        ends = {"upper_head": TeeHead(size=8, line_color="colour"), "lower_head": TeeHead(size=8, line_color="colour")}
        span = {"base": base, "lower": f"{along}_low", "upper": f"{along}_high"}
        plot.add_layout(
            Whisker(source=source, dimension=dimension, line_color="colour", line_width=1.5, **span, **ends)
        )
    ringed = [i for i, name in enumerate(data["variant"]) if name in chosen]
    if ringed:
        x, y, rings_px = ([data[key][i] + more for i in ringed] for key, more in (("x", 0), ("y", 0), ("diameter", 9)))
        plot.scatter(x, y, size=rings_px, fill_color=None, line_color="#2f9e5b", line_width=3)
    return plot.scatter(
        "x",
        "y",
        size="diameter",
        source=source,
        fill_color="colour",
        line_color="colour",
        line_width=1.5,
        fill_alpha="alpha",
        nonselection_alpha=0.15,
        nonselection_line_alpha=0.3,
    )


def _log_ticks(low: float, high: float) -> list[float]:
    """Return 1, 2 and 5 times the powers of ten within the range: Bokeh's own choice leaves a decade without any."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = (mantissa * 10.0**power for power in powers for mantissa in (1, 2, 5))
    return [tick for tick in ticks if low <= tick <= high]


def _range(data: dict[str, list[Any]], axis: str, log: bool) -> Any:
    """Return a range that holds points and whiskers, with room for the bubbles."""
    from bokeh.models import Range1d

    known = [value for end in ("", "_low", "_high") for value in data[axis + end] if not math.isnan(value)]
    low, high = min(known), max(known)
    if log and low > 0:
        room = max(high / low, 1.5) ** 0.15
        return Range1d(low / room, high * room)
    room = 0.15 * (high - low) or 0.1 * abs(high) or 1.0
    return Range1d(low - room, high + room)
