"""What speaks against a measurement, and what a reader should know of it all the same."""

from __future__ import annotations

from device_agent.protocol import JobResult, Measurement, OutputParity
from pipeline.config import Experiment
from pipeline.reporting import format
from pipeline.results.record import Numbers

# Fewer have no interval to speak of: a median moves by several per cent from one process to the next.
ENOUGH_PROCESSES = 5
_MOST_SHOWN = 3


def invalid_reasons(
    measurement: Measurement, experiment: Experiment, result: JobResult, baseline: str
) -> tuple[str, ...]:
    """Return why the numbers of ``measurement``, one of ``result``, may not be used; empty when they may.

    ``experiment`` says how many processes and which parity were asked for, ``baseline`` is whose outputs are compared.
    """
    asked = experiment.measure.processes
    too_few = [f"timed in {len(measurement.blocks)} of {asked} processes"] if len(measurement.blocks) < asked else []
    far_off = [_far_off(parity) for parity in measurement.parity if _is_far_off(parity, experiment.min_snr_db)]
    limit = f", and min_snr_db is {experiment.min_snr_db:g}" if far_off else ""
    others = (*_not_compared(measurement, baseline), *_changed_board(result), *_broke_off(measurement))
    return (*too_few, *_disturbed(measurement), *(text + limit for text in far_off), *others)


def notes(measurement: Measurement, numbers: Numbers, experiment: Experiment) -> tuple[str, ...]:
    """Return what does not make ``measurement`` INVALID, but is never to be passed over in silence."""
    found = (
        _imprecise(measurement, numbers, experiment),
        _not_delegated(measurement),
        "" if numbers.emulated else _few_processes(measurement),
        _retaken(measurement),
        measurement.profile.problem if measurement.profile else "",
        measurement.power.problem if measurement.power else "",
    )
    return tuple(note for note in found if note)


def _disturbed(measurement: Measurement) -> list[str]:
    disturbed = [block for block in measurement.blocks if block.conditions.disturbances]
    if not disturbed:
        return []
    tries = max(block.attempt for block in disturbed) + 1
    texts = list(dict.fromkeys(text for block in disturbed for text in block.conditions.disturbances))
    shown = "; ".join(texts[:_MOST_SHOWN]) + ("; …" if len(texts) > _MOST_SHOWN else "")
    times = "once" if tries == 1 else f"{tries} times"
    return [f"{len(disturbed)} of {len(measurement.blocks)} blocks were disturbed, the last tried {times}: {shown}"]


def _not_compared(measurement: Measurement, baseline: str) -> list[str]:
    """A file may load and lie: without the baseline's outputs nobody knows."""
    if measurement.parity or measurement.model == baseline:
        return []
    return [f"its outputs were not compared: the baseline {baseline} has none; choose another baseline"]


def _changed_board(result: JobResult) -> list[str]:
    before, after = result.before, result.after
    if before is None or after is None:
        return []
    named = (
        ("governor", ", ".join(before.governors), ", ".join(after.governors)),
        ("power mode", before.power_mode or "", after.power_mode or ""),
    )
    return [f"the {name} changed during the job from {old} to {new}" for name, old, new in named if old != new]


def _broke_off(measurement: Measurement) -> list[str]:
    sustained = measurement.sustained
    return [f"the sustained run broke off: {sustained.problem}"] if sustained and sustained.problem else []


def _is_far_off(parity: OutputParity, min_snr_db: float) -> bool:
    return parity.snr_db is not None and parity.snr_db < min_snr_db


def _far_off(parity: OutputParity) -> str:
    return (
        f'output "{parity.output}" is not what the baseline computes: its signal-to-noise ratio is '
        f"{parity.snr_db:.1f} dB over {parity.samples} samples"
    )


def _imprecise(measurement: Measurement, numbers: Numbers, experiment: Experiment) -> str:
    asked, p50 = experiment.measure.precision, numbers.p50_ns
    if not asked or p50 is None:
        return ""
    if p50.low is None or p50.high is None:
        return f"a precision of {asked:.1%} was asked for, and one process has no interval"
    half_width = (p50.high - p50.low) / 2 / p50.value
    if half_width <= asked:
        return ""
    return (
        f"p50 is known to ±{half_width:.1%} after {len(measurement.blocks)} processes; ±{asked:.1%} was asked for: the "
        f"time limit of {experiment.measure.time_limit_s:g} s, or as many blocks as one job may have, came first"
    )


def _not_delegated(measurement: Measurement) -> str:
    taken = measurement.delegation
    if taken is None or taken.delegate == "none" or taken.delegated == taken.operators:
        return ""
    return (
        f"{taken.delegate} took over {taken.delegated} of {taken.operators} operators; "
        f"left to the runtime: {', '.join(taken.left)}"
    )


def _few_processes(measurement: Measurement) -> str:
    count = len(measurement.blocks)
    if count >= ENOUGH_PROCESSES:
        return ""
    return f"timed in {format.count(count, 'fresh process')} only; it takes {ENOUGH_PROCESSES} for an interval"


def _retaken(measurement: Measurement) -> str:
    return f"{format.count(measurement.retaken, 'disturbed block')} taken again" if measurement.retaken else ""
