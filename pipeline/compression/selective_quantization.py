"""Post-training quantization to int8 that leaves the fewest layers in float32, or in int16, for an asked quality.

A layer's sensitivity is the signal-to-noise ratio of the outputs when it alone is in int8, the rest in what layers are
left in. Layers are left in that
order, the most sensitive first: how many it takes is found by bisection, and then each is put back that turns out not
to be needed. Every candidate is really converted and run. The idea is that of TensorFlow's guide to its
QuantizationDebugger, which looks at the error of single tensors; ours looks at what reaches the outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Self

from pydantic import Field, model_validator

from pipeline.compression import Report, _calibration, _refusals
from pipeline.compression._ai_edge import Plan, Precision
from pipeline.compression._calibration import CalibrationSettings
from pipeline.compression._left import LeftReport, tell_left
from pipeline.compression._operators import layer_names, named_operators
from pipeline.compression._quality import Quality, Yardstick
from pipeline.compression._selectable import MOVES, Selectable, selectable
from pipeline.errors import StepError
from pipeline.export import Convertible
from pipeline.results.record import LeftLayer
from pipeline.training.training_data import TrainingData

_RANKED_ON = 64
_FEWEST_HELD_OUT = 20


class Settings(CalibrationSettings):
    """The target is ``min_snr_db``, the signal-to-noise ratio of the outputs against the float model's, or
    ``max_accuracy_drop_pp``, percentage points of top-1 against it, or both; they are measured on
    ``held_out_samples`` training samples that calibration does not see, never on the test set.

    ``fallback`` is what a layer is left in; int16 keeps its weights in int8 (LiteRT only). ``max_layers`` limits how
    many may be left. ``io`` is the type of inputs and outputs.
    """

    min_snr_db: float | None = Field(None, gt=0, le=200)
    max_accuracy_drop_pp: float | None = Field(None, ge=0, le=100)
    fallback: Literal["float32", "int16"] = "float32"
    max_layers: int | None = Field(None, ge=0)
    held_out_samples: int = Field(500, ge=_FEWEST_HELD_OUT, le=100_000)
    io: Literal["int8", "float32"] = "int8"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.min_snr_db is None and self.max_accuracy_drop_pp is None:
            raise ValueError("no target is set; expected min_snr_db, max_accuracy_drop_pp or both")
        return self

    def met_by(self, found: Quality) -> bool:
        """Whether a quality is at least the asked one."""
        enough = self.min_snr_db is None or found.snr_db is None or found.snr_db >= self.min_snr_db
        drop = self.max_accuracy_drop_pp
        return enough and (drop is None or found.accuracy_drop_pp is None or found.accuracy_drop_pp <= drop)

    @property
    def target(self) -> str:
        """The target in words."""
        asked = [] if self.min_snr_db is None else [f"{self.min_snr_db:g} dB at least"]
        if self.max_accuracy_drop_pp is not None:
            asked.append(f"{self.max_accuracy_drop_pp:g} pp of accuracy lost at most")
        return " and ".join(asked)


def _check_runtime(settings: Settings, runtime: str) -> None:
    """Raise StepError for a fallback that is known not to run in a runtime."""
    _refusals.check_runtime(f"fallback {settings.fallback}", runtime, '"fallback: float32"')


def calibration_indices(settings: Settings, data: TrainingData) -> list[int]:
    """Return the training samples that ranges are calibrated with."""
    return _calibration.fixed_indices(settings, data)


@dataclass(frozen=True)
class _Search:
    """Converts and measures candidates; ``found`` has the quality of each set of layers left, by the layers."""

    model: Selectable
    settings: Settings
    yardstick: Yardstick
    found: dict[tuple[str, ...], Quality]

    def meets(self, left: tuple[str, ...]) -> bool:
        """Whether the target is met with these layers left."""
        if left not in self.found:
            self.found[left] = self.yardstick.measure(self.model.leaving(left))
        return self.settings.met_by(self.found[left])


def untreated(source: Convertible, settings: Settings, data: TrainingData) -> list[LeftLayer]:
    """Return the operators that int8 will leave whatever is chosen, by a trial; raises as ``convert``."""
    _check(source, settings)
    _held_out(settings, calibration_indices(settings, data), data)
    report, tried = LeftReport(), _calibration.for_trial(settings)
    model = selectable(source, calibration_indices(tried, data), settings.fallback, settings.io == "int8")
    _tell_rest(source, model.leaving(()), (), report)
    return report.left


def convert(source: Convertible, settings: Settings, data: TrainingData, report: Report) -> bytes:
    """Return the int8 flatbuffer of ``source`` with the fewest layers left that the target can be met with.

    Raises:
        StepError: if the target cannot be met, with the best that was reached, or the model cannot be treated.
    """
    _check(source, settings)
    indices = calibration_indices(settings, data)
    yardstick = _yardstick(source, settings, indices)
    report(0.05, "calibrating")
    model = selectable(source, indices, settings.fallback, settings.io == "int8")
    sensitivity = _sensitivity(model, yardstick.first(_RANKED_ON), report)
    search = _Search(model, settings, yardstick, {})
    left = _fewest(search, sorted(sensitivity, key=sensitivity.__getitem__), report)
    content = model.leaving(left)
    _tell(source, content, search, left, sensitivity, report)
    _calibration.note_doubts(indices, source, content, report)
    return content


def _check(source: Convertible, settings: Settings) -> None:
    _check_runtime(settings, source.data.runtime)
    _refusals.check_model(source, "int8")
    _refusals.check_not_trained_for_int8(source)


def _held_out(settings: Settings, indices: list[int], data: TrainingData) -> list[int]:
    """Return the training samples to measure on. Raises StepError when there are too few, or no labels to need."""
    held_out = _calibration.held_out_indices(indices, data, settings.held_out_samples)
    if len(held_out) < _FEWEST_HELD_OUT:
        raise StepError(
            f"selective_quantization measures on training samples that it does not calibrate with: of {data.count}, "
            f"{len(indices)} are for calibration, which leaves {len(held_out)}; expected {_FEWEST_HELD_OUT} at least: "
            "set calibration_samples lower"
        )
    if settings.max_accuracy_drop_pp is not None and (data.labels is None or data.labels.ndim != 1):
        raise StepError(
            "max_accuracy_drop_pp needs x_train and y_train with one class for each sample; set min_snr_db instead"
        )
    return held_out


def _yardstick(source: Convertible, settings: Settings, indices: list[int]) -> Yardstick:
    data = source.data
    held_out, labels = _held_out(settings, indices, data), data.labels
    inputs = data.inputs(held_out)
    known = labels is not None and labels.ndim == 1
    return Yardstick(inputs, source.outputs(inputs), labels[held_out] if labels is not None and known else None)


def _sensitivity(model: Selectable, yardstick: Yardstick, report: Report) -> dict[str, float]:
    """Return, for each layer, the signal-to-noise ratio in dB of the outputs when it alone is in int8."""
    found = {}
    for done, layer in enumerate(model.layers):
        ratio_db = yardstick.measure(model.only(layer)).snr_db
        found[layer] = float("inf") if ratio_db is None else ratio_db
        report(0.1 + 0.5 * done / len(model.layers), f"sensitivity of {layer}")
    return found


def _fewest(search: _Search, order: list[str], report: Report) -> tuple[str, ...]:
    """Return the layers to leave: the shortest beginning of ``order`` that is enough, less what it can do without."""
    most = len(order) if search.settings.max_layers is None else min(search.settings.max_layers, len(order))
    if search.meets(()):
        return ()
    enough = _enough(search, order, most)
    fails = 0
    while enough - fails > 1:
        middle = (fails + enough) // 2
        fails, enough = (fails, middle) if search.meets(tuple(order[:middle])) else (middle, enough)
        report(0.65, f"tried with {middle} layers left")
    return _thinned(order[:enough], search.meets)


def _enough(search: _Search, order: list[str], most: int) -> int:
    """Return how many of the first layers to leave are enough, not the fewest; raise StepError when none are.

    Leaving more is not always better, above all in int16: where ``most`` are not enough, fewer may be.
    """
    for count in range(most, 0, -max(1, most // 10)):
        if search.meets(tuple(order[:count])):
            return count
    settings, best = search.settings, max(search.found, key=lambda left: search.found[left].rank)
    limit = "" if settings.max_layers is None else f" (max_layers is {settings.max_layers})"
    hint = "; io: float32 may give more" if settings.io == "int8" else ""
    raise StepError(
        f"{settings.target} cannot be met with up to {most} of {len(order)} layers in {settings.fallback}{limit}; "
        f"the best was {search.found[best]}, with {len(best)} layers{hint}"
    )


def _thinned(left: list[str], meets: Callable[[tuple[str, ...]], bool]) -> tuple[str, ...]:
    """Return ``left`` without those layers that the target is met without, the least sensitive tried first."""
    for layer in reversed(left):
        rest = [other for other in left if other != layer]
        if rest and meets(tuple(rest)):
            left = rest
    return tuple(left)


def _tell(
    source: Convertible,
    content: bytes,
    search: _Search,
    left: tuple[str, ...],
    sensitivity: dict[str, float],
    report: Report,
) -> None:
    settings, samples = search.settings, len(search.yardstick.inputs)
    for layer in left:
        kinds = ", ".join(search.model.kinds(layer))
        said = f"{kinds}: left in {settings.fallback}; alone in int8 it gives {sensitivity[layer]:.1f} dB"
        report.leave(layer, said, chosen=True)
    report.note(
        f"int8 throughout: {search.found[()]}; with {len(left)} of {len(sensitivity)} layers in {settings.fallback}: "
        f"{search.found[left]}; asked: {settings.target}; over {samples} held-out training samples"
    )
    _tell_rest(source, content, left, report)


def _tell_rest(source: Convertible, content: bytes, left: tuple[str, ...], report: Report) -> None:
    """Report what is not in int8 though it was not chosen to be left."""
    operators = named_operators(content, layer_names(source.model))
    rest = [operator for operator in operators if operator.layer not in left and operator.name not in MOVES]
    tell_left(rest, Plan(Precision("int8"), {}), "the converter", True, report)
