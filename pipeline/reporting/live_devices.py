"""All devices of a run while it goes on: a row for each, those that need to be looked at first."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich import box
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pipeline.reporting import format
from pipeline.reporting.progress import BYTES
from pipeline.results.comparison import EMULATED
from pipeline.results.record import VariantRecord

FAILED, DONE = "failed", "done"
# What else is on the screen while devices are measured: headings, the prompt, the line about those not shown.
OTHER_LINES = 6
_LEAST_ROWS = 4
_ORDER = {FAILED: 0, DONE: 3}
_WAITING = 2


@dataclass
class Row:
    """What is known of one device: the stage it is in, or how the last one ended."""

    device: str
    stage: str = ""
    done: int = 0
    total: int | None = None
    unit: str = ""
    text: str = "waiting"
    since_s: float = 0.0

    @property
    def order(self) -> int:
        """Failures first, then what is going on, what waits, and what is done."""
        return _ORDER.get(self.stage, 1 if self.stage else _WAITING)


class LiveDevices:
    """The rows of all devices; every method may be called from any thread.

    Args:
        say: prints one line that stays.
        lines: whether each end of a stage is such a line; otherwise only failures and ends of devices are.
    """

    def __init__(self, say: Callable[[str], None], lines: bool) -> None:
        self._say = say
        self._lines = lines
        self._rows: dict[str, Row] = {}
        self._lock = threading.Lock()

    def __bool__(self) -> bool:
        return bool(self._rows)

    def add(self, name: str) -> LiveDevice:
        """Add a device and return what shows how it goes there."""
        with self._lock:
            self._rows.setdefault(name, Row(name))
        return LiveDevice(self, name)

    def begin(self, device: str, stage: str, total: int | None, unit: str) -> None:
        """Show that a device is in a stage."""
        with self._lock:
            self._rows[device] = Row(device, stage, 0, total, unit, "", time.monotonic())

    def update(self, device: str, stage: str, done: int, total: int | None) -> None:
        """Show how far a stage is."""
        with self._lock:
            row = self._rows[device]
            if row.stage == stage:
                row.done, row.total = done, row.total if total is None else total

    def end(self, device: str, stage: str, text: str) -> None:
        """Show how a stage has ended; one that has ended stays as it is."""
        with self._lock:
            row = self._rows[device]
            if row.stage != stage or row.text:
                return
            row.text, row.done, row.total = format.one_line(text), 0, None
            took = format.seconds(time.monotonic() - row.since_s)
        if self._lines or stage in (FAILED, DONE):
            self._say(f"{device}: {stage}: {text}" + ("" if stage in (FAILED, DONE) else f" ({took})"))

    def line(self, text: str) -> None:
        """Print one line, unless the table shows enough."""
        if self._lines:
            self._say(text)

    def table(self, height: int) -> Table:
        """Return as many rows as ``height`` lines hold, and a line that counts the others."""
        with self._lock:
            rows = sorted(self._rows.values(), key=lambda row: row.order)
        room = max(_LEAST_ROWS, height - OTHER_LINES)
        shown = rows if len(rows) <= room else rows[:room]
        table = Table("device", "stage", "", "", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
        for row in shown:
            table.add_row(Text(row.device), Text(row.stage), _bar(row), _said(row))
        if len(shown) < len(rows):
            table.add_row("", Text(_counted(rows[len(shown) :]), style="dim"), "", "")
        return table


class LiveDevice:
    """One device's part of a ``RunDisplay``; satisfies ``pipeline.reporting.progress.Progress``."""

    def __init__(self, devices: LiveDevices, name: str) -> None:
        self._devices = devices
        self._name = name

    def stage(self, name: str, total: int | None = None, unit: str = "steps") -> LiveStage:
        """Start a stage; see ``Progress.stage``."""
        self._devices.begin(self._name, name, total, unit)
        return LiveStage(self._devices, self._name, name)

    def variant(self, record: VariantRecord) -> None:
        """Print how a variant did there; see ``Progress.variant``."""
        if record.numbers:
            p50_ns, score = record.numbers.p50_ns, format.fraction(record.numbers.score.value)
            p50 = format.duration(p50_ns.value) if p50_ns else EMULATED
            status = "VALID" if record.valid else "INVALID"
            self._devices.line(f"{self._name}: {record.name}: {status}, p50 {p50}, {score}")

    def device(self, name: str) -> LiveDevice:
        """Return what shows another device."""
        return self._devices.add(name)


class LiveStage:
    """One stage of one device."""

    def __init__(self, devices: LiveDevices, device: str, name: str) -> None:
        self._devices = devices
        self._device = device
        self._name = name
        self._done = 0

    def advance(self, amount: int = 1) -> None:
        """Count ``amount`` more units as done."""
        self.update(self._done + amount)

    def update(self, done: int, total: int | None = None) -> None:
        """Set what is done so far, and the total when it is given."""
        self._done = done
        self._devices.update(self._device, self._name, done, total)

    def finish(self, text: str = "done") -> None:
        """End the stage; a second call does nothing."""
        self._devices.end(self._device, self._name, text)


def _bar(row: Row) -> ProgressBar | Text:
    if not row.total or row.text:
        return Text("")
    return ProgressBar(row.total, row.done, width=20)


def _said(row: Row) -> Text:
    if row.text:
        return Text(row.text, style="red" if row.stage == FAILED else "green" if row.stage == DONE else "dim")
    elapsed_s = time.monotonic() - row.since_s
    if not row.total:
        return Text(format.seconds(elapsed_s) if row.stage else "")
    left = f" {format.seconds(elapsed_s * (row.total - row.done) / row.done)} left" if row.done else ""
    if row.unit != BYTES:
        return Text(f"{row.done}/{row.total} {row.unit}{left}")
    rate = f" {format.memory(row.done / elapsed_s)}/s" if row.done and elapsed_s > 0 else ""
    return Text(f"{format.memory(row.done)}/{format.memory(row.total)}{rate}{left}")


def _counted(rows: Sequence[Row]) -> str:
    words = {0: "failed", 1: "under way", _WAITING: "waiting", 3: "done"}
    counts = ((sum(row.order == order for row in rows), word) for order, word in words.items())
    return "and " + ", ".join(f"{count} {word}" for count, word in counts if count)
