"""The parts of a report beside its table, as lists of (label, text) that Markdown and HTML lay out alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from device_agent.protocol import BoardState, Power, SustainedMinute
from pipeline import compression
from pipeline.reporting import format
from pipeline.reporting.columns import VALID, runtime, status
from pipeline.results.comparison import EMULATED
from pipeline.results.record import RunRecord, StepEvidence, VariantRecord

Lines = tuple[tuple[str, str], ...]

_MOST_OPERATORS = 6

_TIMES = (
    (
        "p50, p90, p99",
        "time of one inference alone, warmed up: the median over fresh processes of each one's own percentile, "
        "with a 95 % bootstrap interval over the processes; p90 only from 64 samples a process, p99 from 662",
    ),
    ("load, first inference", "opening the model, and the first run in a fresh process; never mixed into p50"),
)
_EMULATED = (
    EMULATED,
    "a program carries out this board's instructions, hundreds of times slower than a board and some more so than "
    "others: what it takes says nothing of any board, so no time is reported. Scores, sizes and outputs are right",
)
_FASTEST = "the fastest by p50; of those not shown to be slower, the smallest"
_SMALLEST = "the smallest: no time is judged"


def details(record: RunRecord) -> tuple[tuple[str, Lines], ...]:
    """Return the sections that only some records have, as (title, lines)."""
    found = (
        ("Notes", _lines(record, lambda variant: "; ".join(variant.notes))),
        ("What each step did", _steps(record)),
        ("Memory", _lines(record, _memory)),
        ("Sustained", _lines(record, _sustained)),
        ("Power", _lines(record, _power)),
        ("Where the time goes", _lines(record, _operators)),
        ("Weights after each step", _weights(record)),
    )
    return tuple((title, lines) for title, lines in found if lines)


def conditions(record: RunRecord) -> Lines:
    """Return what every number of ``record`` was measured on and under, as (label, text)."""
    lines = (
        (
            "device",
            f"{record.device_name} ({record.device.model or record.device.machine}), transport {record.transport}"
            f"{', emulated' if record.device.emulated else ''}",
        ),
        ("processor", _processor(record)),
        ("system", f"{record.device.os or 'unknown'}, kernel {record.device.kernel}, Python {record.device.python}"),
        ("runtime", ", ".join(_distinct(record, lambda v: str(runtime(v))))),
        ("timing", ", ".join(_distinct(record, _timing))),
        ("allowed", _allowed(record)),
        *_board(record),
        ("samples", f"{record.samples:,} scored, from {record.data_source}"),
        ("host", ", ".join(f"{name} {value}" for name, value in record.host.items())),
        ("experiment", f"{record.experiment} ({record.experiment_file})"),
        ("measured", " to ".join(filter(None, record.measured_utc))),
        ("run", f"{record.run_id}, {record.started_utc} to {record.finished_utc}"),
    )
    return tuple((label, text) for label, text in lines if text)


def reading(record: RunRecord) -> Lines:
    """Return how to read the numbers, as (term, explanation)."""
    emulated = record.device.emulated
    return (
        *((_EMULATED,) if emulated else _TIMES),
        (format.metric(record.metric), _meaning(record.metric)),
        ("change", f"difference to {record.baseline}, in percentage points (pp)"),
        ("raw, gzip", "the flatbuffer as it lies on the device, and compressed: pruning only shows in the second"),
        ("peak memory", "the most a process of this variant held, runtime and Python included"),
        *(() if emulated else _speed(record.baseline)),
        ("better, worse", "McNemar's exact test on the samples that only one of the two gets right, at 5 %"),
        ("SNR", f"how far the outputs are from those of {record.baseline}, on this device and runtime"),
        (
            VALID,
            "timed in every process asked for, no block hot, throttled or disturbed beyond the device's limits, scored "
            "on every sample, outputs finite and near the baseline's. Other numbers are shown, but never chosen",
        ),
        ("verdict", f"of the VALID variants within the budget {_SMALLEST if emulated else _FASTEST}"),
    )


def reading_of_several(records: Sequence[RunRecord]) -> Lines:
    """Return how to read the numbers of several devices, of which some may be emulated."""
    real = [record for record in records if not record.device.emulated]
    lines = reading((real or records)[0])
    return lines if len(real) in (0, len(records)) else (_EMULATED, *lines)


def _speed(baseline: str) -> Lines:
    how = (
        f"time of an inference against {baseline}, by paired blocks of one job; faster or slower only when "
        "the 95 % interval lies beyond the smallest effect, otherwise as fast or not shown"
    )
    return (("speed", how),)


def problems(record: RunRecord) -> tuple[tuple[str, str, str], ...]:
    """Return each variant that is not VALID, as (name, status, reasons)."""
    found = ((variant.name, status(variant)) for variant in record.variants)
    return tuple((name, cell.text, cell.detail) for name, cell in found if cell.text != VALID)


def _meaning(metric: str) -> str:
    if metric.startswith("top"):
        return "share of the samples that are right, with its 95 % Wilson interval"
    return "the score over all samples, in percent"


def _lines(record: RunRecord, text: Callable[[VariantRecord], str]) -> Lines:
    found = ((variant.name, text(variant)) for variant in record.variants if variant.measurement)
    return tuple((name, said) for name, said in found if said)


def _steps(record: RunRecord) -> Lines:
    return _of_steps(record, lambda found: f"{_explained(found.step)} {_evidence(found, record.metric)}")


def _of_steps(record: RunRecord, text: Callable[[StepEvidence], str]) -> Lines:
    return tuple(
        (f"{variant.name}: {evidence.step}", said)
        for variant in record.variants
        if variant.artifact
        for evidence in variant.artifact.evidence
        if (said := text(evidence))
    )


def _weights(record: RunRecord) -> Lines:
    """Return the zeros and distinct values of each tensor, as each step left them."""
    return _of_steps(
        record,
        lambda found: "; ".join(
            f"{tensor.name} {list(tensor.shape)} {tensor.dtype}: {tensor.zeros:.1%} zeros, {tensor.distinct:,} distinct"
            for tensor in found.tensors
        ),
    )


def _explained(step: str) -> str:
    """Return what a step is for, in the first words of its technique's module."""
    if step not in compression.known():
        return "The model as it is, for one sample at a time."
    return str(compression.technique(step).__doc__).strip().splitlines()[0]


def _evidence(found: StepEvidence, metric: str) -> str:
    snr = "identical outputs" if found.snr_db is None else f"SNR {found.snr_db:.1f} dB"
    told = (
        f"{found.parameters:,} parameters",
        f"{format.millions(found.macs)} MACs",
        f"{found.zeros:.0%} zeros",
        f"at most {found.most_distinct:,} distinct values in a tensor",
        f"raw {format.size(found.size_bytes)}, gzip {format.size(found.gzip_bytes)}",
        f"{format.metric(metric)} {format.fraction(found.score)} over {found.samples:,} samples on the host, {snr}",
    )
    left = "; ".join(f"{layer.layer} ({layer.reason})" for layer in found.left)
    return ". ".join((", ".join(told), *found.notes, *((f"left as it is: {left}",) if left else ())))


def _memory(variant: VariantRecord) -> str:
    blocks = variant.measurement.blocks if variant.measurement else ()
    splits = [block.memory for block in blocks if block.memory.runtime_bytes]
    if not splits:
        return ""
    middle = sorted(splits, key=lambda split: split.load_bytes + split.first_invoke_bytes)[len(splits) // 2]
    return (
        f"runtime {format.memory(middle.runtime_bytes)}, model load {format.memory(middle.load_bytes)}, "
        f"first inference {format.memory(middle.first_invoke_bytes)}"
    )


def _sustained(variant: VariantRecord) -> str:
    measured = variant.measurement.sustained if variant.measurement else None
    if measured is None or not measured.minutes:
        return ""
    if _is_emulated(variant):
        return EMULATED
    first, last = measured.minutes[0], measured.minutes[-1]
    if first is last:
        return _minute(first)
    change = last.p50_ns / first.p50_ns - 1
    slowest = max(measured.minutes, key=lambda minute: minute.p50_ns)
    return f"{_minute(first)}; {_minute(last)} ({change:+.1%}); slowest: {_minute(slowest)}"


def _minute(minute: SustainedMinute) -> str:
    told = (
        f"p50 {format.duration(minute.p50_ns)}",
        f"{minute.temperature_c:.1f} °C" if minute.temperature_c is not None else "",
        f"{minute.clock_mhz:.0f} MHz" if minute.clock_mhz is not None else "",
        *minute.throttled,
    )
    return f"minute {minute.minute} {', '.join(text for text in told if text)}"


def _power(variant: VariantRecord) -> str:
    power: Power | None = variant.measurement.power if variant.measurement else None
    if power is None or not power.rails_w or _is_emulated(variant):
        return ""
    rails = ", ".join(f"{rail.name} {rail.value:.2f} W" for rail in power.rails_w)
    return f"{power.mean_w:.2f} W, {power.energy_per_invoke_mj:.3g} mJ an inference ({rails})"


def _operators(variant: VariantRecord) -> str:
    if not variant.operators:
        return ""
    if _is_emulated(variant):
        return EMULATED
    longest = sorted(variant.operators, key=lambda operator: -operator.mean_ns)[:_MOST_OPERATORS]
    shown = (f"{o.name} #{o.place} {format.duration(o.mean_ns)} ({o.share:.0%}, {o.source})" for o in longest)
    more = len(variant.operators) - len(longest)
    return ", ".join(shown) + (f"; {format.count(more, 'more operator')}" if more > 0 else "")


def _is_emulated(variant: VariantRecord) -> bool:
    return variant.numbers is not None and variant.numbers.emulated


def _processor(record: RunRecord) -> str:
    device = record.device
    ram = f"{device.ram_bytes / 2**30:.1f} GiB of memory" if device.ram_bytes else ""
    return ", ".join(filter(None, (device.soc, device.machine, format.count(device.cores, "core"), ram)))


def _timing(variant: VariantRecord) -> str:
    measured = variant.measurement
    if measured is None:
        return ""
    batch = f", {measured.batch} samples an inference" if measured.batch > 1 else ""
    return f"{format.count(len(measured.blocks), 'process')} a variant{batch}"


def _allowed(record: RunRecord) -> str:
    asked = record.conditions
    limits = (
        f"at most {asked.max_temperature_c:g} °C" if asked.max_temperature_c is not None else "",
        f"others at most {asked.max_other_cpus:g} cores" if asked.max_other_cpus is not None else "",
        f"clock at least {asked.min_clock_share:.0%} of the highest" if asked.min_clock_share is not None else "",
        f"no throttling, no swapping; {format.count(asked.retries, 'retry')}",
    )
    return ", ".join(limit for limit in limits if limit)


def _board(record: RunRecord) -> Lines:
    states = (("before", record.before), ("after", record.after))
    return tuple((label, _state(state)) for label, state in states if state)


def _state(state: BoardState) -> str:
    told = (
        f"{max(zone.value for zone in state.temperatures_c):.1f} °C" if state.temperatures_c else "",
        _clock(state),
        f"governor {', '.join(state.governors)}" if state.governors else "",
        f"throttled now: {', '.join(state.throttled_now)}" if state.throttled_now else "",
        f"since boot: {', '.join(state.throttled_since_boot)}" if state.throttled_since_boot else "",
        f"power mode {state.power_mode}" if state.power_mode else "",
        f"load {state.load_1min:.2f}" if state.load_1min is not None else "",
        f"swap {format.memory(state.swap_used_bytes)}" if state.swap_used_bytes else "",
    )
    return ", ".join(text for text in told if text)


def _clock(state: BoardState) -> str:
    if not state.clocks_mhz:
        return ""
    highest = f" of {state.max_clock_mhz:.0f}" if state.max_clock_mhz else ""
    return f"{max(core.value for core in state.clocks_mhz):.0f}{highest} MHz"


def _distinct(record: RunRecord, text: Callable[[VariantRecord], str]) -> list[str]:
    found = dict.fromkeys(text(variant) for variant in record.variants if variant.measurement)
    return [item for item in found if item]
