"""How numbers are written for a reader: three digits, a unit, the interval in the same unit."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.results.record import Estimate

NONE = "—"
KIB = 1024
MIB = 1024 * 1024

_METRICS = {"top1": "top-1", "top5": "top-5", "map": "mAP"}


@dataclass(frozen=True)
class Unit:
    """A unit and how many of the base unit (ns, bytes) it holds."""

    name: str
    size: float


_TIME_UNITS = (Unit("ns", 1), Unit("µs", 1e3), Unit("ms", 1e6), Unit("s", 1e9))


def time_unit(ns: float) -> Unit:
    """Return the unit in which ``ns`` reads as 1 to 999."""
    fitting = [unit for unit in _TIME_UNITS if ns >= 0.9995 * unit.size]
    return fitting[-1] if fitting else _TIME_UNITS[0]


def duration(ns: float) -> str:
    """Return ``ns`` to three digits: ``52.1 µs``."""
    unit = time_unit(ns)
    return f"{_digits(ns, unit.size)} {unit.name}"


def duration_interval(estimate: Estimate) -> str:
    """Return the interval in the unit and to the decimals of its point: ``51.0–53.4``; empty where there is none."""
    unit = time_unit(estimate.value)
    return _interval(estimate, unit.size, _decimals(estimate.value / unit.size))


def size(size_bytes: float) -> str:
    """Return bytes in KiB: ``98.4 KiB``."""
    return f"{size_bytes / KIB:,.1f} KiB"


def memory(size_bytes: float) -> str:
    """Return bytes in MiB: ``41.0 MiB``."""
    return f"{size_bytes / MIB:,.1f} MiB"


def exact_bytes(size_bytes: int) -> str:
    """Return every byte: ``100,776 bytes``."""
    return f"{size_bytes:,} bytes"


def fraction(value: float) -> str:
    """Return a fraction in percent: ``92.61 %``."""
    return f"{100 * value:.2f} %"


def fraction_interval(estimate: Estimate) -> str:
    """Return the interval of a fraction in percent: ``92.08–93.11``; empty where there is none."""
    return _interval(estimate, 0.01, 2)


def ratio_interval(estimate: Estimate) -> str:
    """Return the interval of a ratio: ``0.44–0.48``; empty where there is none."""
    return _interval(estimate, 1.0, 2)


def change(points_pp: float) -> str:
    """Return a change in percentage points with its sign: ``−0.31 pp``; never ``−0.00``."""
    rounded = round(points_pp, 2)
    sign = "−" if rounded < 0 else "+" if rounded > 0 else "±"
    return f"{sign}{abs(rounded):.2f} pp"


def seconds(duration_s: float) -> str:
    """Return a wall time for a progress line: ``12.3 s``, ``3 min 05 s``."""
    if duration_s < 99.95:
        return f"{duration_s:.1f} s"
    minutes, rest = divmod(round(duration_s), 60)
    return f"{minutes} min {rest:02d} s"


def count(number: int, noun: str) -> str:
    """Return ``1 process``, ``5 processes``: the number with its noun."""
    if number == 1:
        return f"1 {noun}"
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{number:,} {plural}"


def metric(name: str) -> str:
    """Return a metric's name as its field writes it: ``top-1`` for ``top1``."""
    return _METRICS.get(name, name.replace("_", " "))


def one_line(text: str) -> str:
    """Return ``text`` without line breaks and runs of blanks."""
    return " ".join(text.split())


def _interval(estimate: Estimate, unit_size: float, decimals: int) -> str:
    if estimate.low is None or estimate.high is None:
        return ""
    return f"{estimate.low / unit_size:,.{decimals}f}–{estimate.high / unit_size:,.{decimals}f}"


def _digits(value: float, unit_size: float) -> str:
    scaled = value / unit_size
    return f"{scaled:,.{_decimals(scaled)}f}"


def _decimals(value: float) -> int:
    if value < 9.995:
        return 2
    return 1 if value < 99.95 else 0


def millions(count: int) -> str:
    """Return a large count in millions: ``12.3 M``."""
    return f"{count / 1e6:.3g} M"
