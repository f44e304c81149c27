"""The training samples that ranges of activations are calibrated with, and those that are held out to measure on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from pipeline import export
from pipeline.compression import ConvertSettings, Report
from pipeline.export import Convertible
from pipeline.training.training_data import TrainingData

FEW = 100
"""Below this many samples the ranges are often too narrow: 1 image gave 14 dB, 20 about 30, 100 and more 36."""
_HELD_OUT = 200
_TRIED_WITH = 8

Trial = TypeVar("Trial", bound="CalibrationSettings")


class CalibrationSettings(ConvertSettings):
    """``calibration_samples`` are drawn from the training samples by the experiment's seed."""

    calibration_samples: int = Field(200, ge=1, le=100_000)


def for_trial(settings: Trial) -> Trial:
    """Return the settings of a conversion that is only to show what it leaves: the ranges need not be right."""
    return settings.model_copy(update={"calibration_samples": min(settings.calibration_samples, _TRIED_WITH)})


def fixed_indices(settings: CalibrationSettings, data: TrainingData) -> list[int]:
    """Return the indices of the samples to calibrate with, ascending; always the same for one seed."""
    return data.fixed_indices(settings.calibration_samples)


def samples(indices: list[int], data: TrainingData) -> Iterator[npt.NDArray[np.generic]]:
    """Yield the samples at ``indices`` one by one, each [1, …]."""
    for index in indices:
        yield data.inputs([index])


def held_out_indices(used: list[int], data: TrainingData, count: int) -> list[int]:
    """Return up to ``count`` indices of training samples that are not in ``used``, drawn by the seed, ascending."""
    rest = np.setdiff1d(np.arange(data.count), used)
    # Another stream than the one that drew ``used``.
    chosen = np.random.default_rng([data.seed, 1]).choice(rest, min(count, len(rest)), replace=False)
    return sorted(int(index) for index in chosen)


def note_doubts(indices: list[int], source: Convertible, content: bytes, report: Report) -> None:
    """Note when the calibration samples are few or all of one class, with the signal-to-noise ratio that came of it."""
    doubts = _doubts(indices, source.data)
    if not doubts:
        return
    held_out = held_out_indices(indices, source.data, _HELD_OUT)
    inputs = source.data.inputs(held_out or indices)
    ratio_db = export.snr_db(source.outputs(inputs), export.flatbuffer_outputs(content, inputs))
    measured = "no difference" if ratio_db is None else f"{ratio_db:.1f} dB"
    where = f"{len(held_out)} held-out training samples" if held_out else "these same samples: there are no others"
    report.note(f"calibrated with {' and '.join(doubts)}: SNR against the float model {measured} over {where}")


def _doubts(indices: list[int], data: TrainingData) -> list[str]:
    found = [f"{len(indices)} samples, fewer than {FEW}"] if len(indices) < FEW else []
    labels = data.labels
    if labels is not None and labels.ndim == 1 and len(indices) > 1 and len(np.unique(labels[indices])) == 1:
        found.append(f"samples of one class only, {labels[indices[0]]}")
    return found
