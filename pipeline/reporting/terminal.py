"""The terminal: a table of results, and the display of a run under way."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from types import TracebackType

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from pipeline.reporting import format
from pipeline.reporting.columns import FAILED, INVALID, VALID, Cell, Column, columns
from pipeline.reporting.live_devices import LiveDevice, LiveDevices
from pipeline.reporting.progress import BYTES
from pipeline.reporting.sections import problems
from pipeline.results.record import RunRecord, VariantRecord

NARROW = ("variant", "raw", "gzip", "score", "change", "p50", "status")
WIDE = ("variant", "raw", "gzip", "score", "change", "p50", "speed", "memory", "status")
WIDE_FROM = 140
DETAILED = ("score", "p50", "speed")

_COLOURS = {VALID: "green", INVALID: "yellow", FAILED: "red"}


def results_table(record: RunRecord, width: int = 80) -> Table:
    """Return the variants of ``record`` as a table that is readable in ``width`` characters, the chosen one marked."""
    return _table(columns(record.metric), record.variants, record.verdict.chosen, width)


def run_summary(record: RunRecord, width: int = 80) -> RenderableType:
    """Return what is printed at the end of a run: the table, why variants are not VALID, the verdict."""
    reasons = [Text(f"{name} {status}: {why}") for name, status, why in problems(record) if why]
    reasons += [Text(f"{variant.name} note: {note}") for variant in record.variants for note in variant.notes]
    verdict = Text(record.verdict.reason, style="bold" if record.verdict.chosen else "bold red")
    return Group(results_table(record, width), *reasons, Padding(verdict, (1, 0, 0, 0)))


class RunDisplay:
    """Shows a run while it goes on: bars and a growing table on a terminal, single lines elsewhere.

    Satisfies ``pipeline.reporting.progress.Progress``; to be used as a context manager.
    """

    def __init__(self, console: Console, metric: str) -> None:
        self._console = console
        self._columns = columns(metric)
        self._variants: dict[str, VariantRecord] = {}
        self._stages: list[RunStage] = []
        self._lock = threading.Lock()
        self._interactive = console.is_terminal and not console.is_dumb_terminal
        self._bars = _bars(console)
        self._devices = LiveDevices(self.line, lines=not self._interactive)
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=8, transient=True)

    def __enter__(self) -> RunDisplay:
        if self._interactive:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for stage in list(self._stages):
            stage.finish("stopped" if kind else "done")
        if self._interactive:
            self._live.stop()
            if kind and self._devices:
                self._console.print(self._devices.table(self._console.height))
            elif kind and self._variants:
                self._console.print(self._table())

    def stage(self, name: str, total: int | None = None, unit: str = "steps") -> RunStage:
        """Start a stage; see ``Progress.stage``."""
        started = RunStage(self, self._bars, self._bars.add_task(name, total=total, unit=unit), name)
        with self._lock:
            self._stages.append(started)
        if not self._interactive:
            self.line(f"{name}: started")
        return started

    def variant(self, record: VariantRecord) -> None:
        """Add or replace the row of one variant; see ``Progress.variant``."""
        with self._lock:
            self._variants[record.name] = record
        if not self._interactive and (record.numbers or record.failure):
            self.line(_sentence(self._columns, record))

    def device(self, name: str) -> LiveDevice:
        """Add a row for a device; see ``Progress.device``."""
        return self._devices.add(name)

    def line(self, text: str) -> None:
        """Print one line that stays, above whatever moves."""
        self._console.print(Text(text), soft_wrap=True)

    def end(self, stage: RunStage) -> bool:
        """Forget ``stage``; return whether it was still under way."""
        with self._lock:
            if stage not in self._stages:
                return False
            self._stages.remove(stage)
            return True

    def _render(self) -> RenderableType:
        variants = [self._table()] if self._variants and not self._devices else []
        devices = [self._devices.table(self._console.height)] if self._devices else []
        return Group(*variants, *devices, self._bars)

    def _table(self) -> Table:
        with self._lock:
            known = tuple(self._variants.values())
        return _table(self._columns, known, None, self._console.width)


class RunStage:
    """One stage of a ``RunDisplay``: a bar while it goes on, one line when it has ended."""

    def __init__(self, display: RunDisplay, bars: Progress, task: TaskID, name: str) -> None:
        self._display = display
        self._bars = bars
        self._task = task
        self._name = name
        self._started_s = time.monotonic()

    def advance(self, amount: int = 1) -> None:
        """Count ``amount`` more units as done."""
        self._bars.advance(self._task, amount)

    def update(self, done: int, total: int | None = None) -> None:
        """Set what is done so far, and the total when it is given."""
        self._bars.update(self._task, completed=done, total=total)

    def finish(self, text: str = "done") -> None:
        """Take the bar away and say in one line how it ended; a second call does nothing."""
        if self._display.end(self):
            self._bars.remove_task(self._task)
            took = format.seconds(time.monotonic() - self._started_s)
            self._display.line(f"{self._name}: {text} ({took})")


class _Amount(ProgressColumn):
    """``3/5 blocks``, or ``1.2/30.9 MiB 4.1 MiB/s`` where the unit is bytes."""

    def render(self, task: Task) -> Text:
        unit = task.fields["unit"]
        if unit != BYTES:
            return Text(f"{int(task.completed)}{f'/{int(task.total)}' if task.total else ''} {unit}")
        total = f"/{format.memory(task.total)}" if task.total else ""
        rate = f" {format.memory(task.speed)}/s" if task.speed else ""
        return Text(f"{format.memory(task.completed)}{total}{rate}")


def _bars(console: Console) -> Progress:
    shown = (
        TextColumn("{task.description}", markup=False),
        BarColumn(24),
        _Amount(),
        TimeRemainingColumn(compact=True),
    )
    return Progress(*shown, console=console, auto_refresh=False)


def _table(known: Sequence[Column], variants: Iterable[VariantRecord], chosen: str | None, width: int) -> Table:
    wide = width >= WIDE_FROM
    shown = [column for column in known if column.key in (WIDE if wide else NARROW)]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for column in shown:
        table.add_column(column.heading, justify="right" if column.numeric else "left", overflow="fold")
    for variant in variants:
        style = "bold" if variant.name == chosen else ""
        table.add_row(*(_text(column, column.cell(variant), wide) for column in shown), style=style)
    return table


def _text(column: Column, cell: Cell, wide: bool) -> Text:
    detailed = wide and column.key in DETAILED and cell.detail
    return Text(str(cell) if detailed else cell.text, style=_COLOURS.get(cell.text, ""))


def _sentence(known: Sequence[Column], variant: VariantRecord) -> str:
    cells = ((column, column.cell(variant)) for column in known if column.key in NARROW[1:])
    said = [_phrase(column, cell) for column, cell in cells if cell.text != format.NONE]
    return f"{variant.name}: {', '.join(said)}"


def _phrase(column: Column, cell: Cell) -> str:
    return str(cell) if column.key == "status" else f"{column.heading} {cell}"
