"""What the steps of a variant will leave as it is, or cannot do, found before anything is trained.

Each step is asked about what the one before it will give, but for the training; the conversion is tried. Runs in a
child process: everything here may load TensorFlow.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from pipeline import export
from pipeline.errors import EdgepressError
from pipeline.model_formats.model_files import as_tf_keras
from pipeline.results.record import LeftLayer
from pipeline.training.training_data import TrainingData


def survey(steps: Iterable[tuple[Any, Any]], model: Any, data: TrainingData) -> list[dict[str, Any]]:
    """Return for each step the layers that it will leave; for one that cannot be done the error, and nothing after it.

    Args:
        steps: the technique's module and the settings of each.
        model: the source model.
        data: what a conversion is tried with.
    """
    found: list[dict[str, Any]] = []
    for technique, settings in steps:
        try:
            left, model = _asked(technique, settings, model, data)
        except EdgepressError as error:
            return [*found, {"error": str(error)}]
        found.append({"left": [asdict(layer) for layer in left]})
    return found


def _asked(technique: Any, settings: Any, model: Any, data: TrainingData) -> tuple[list[LeftLayer], Any]:
    """Return what a step will leave, and the model that the next one will be given."""
    if not hasattr(technique, "rewrite"):
        left = technique.untreated(export.Convertible(model, data), settings, data)
    else:
        model = as_tf_keras(model)
        left = technique.untreated(model, settings)
    settings.check(left)
    return left, technique.outline(model, settings) if hasattr(technique, "outline") else model
