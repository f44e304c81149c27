"""A smaller student learns from what the experiment's own model answers.

Source: G. Hinton, O. Vinyals, J. Dean, "Distilling the Knowledge in a Neural Network", arXiv:1503.02531.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from pipeline.compression import FILE, Report
from pipeline.compression._layer_graph import check_graph
from pipeline.compression._narrowing import narrow, narrowed
from pipeline.errors import StepError
from pipeline.model_formats.model_files import as_tf_keras, detect_format, load_keras
from pipeline.results.record import LeftLayer
from pipeline.training.fine_tuning import TrainedSettings, fine_tune
from pipeline.training.soft_targets import Distillation
from pipeline.training.training_data import TrainingData


class Settings(TrainedSettings, Distillation):
    """``student`` is a Keras model, trained or not; with ``width`` it is the model that the step is given with that
    share of filters and units in each layer, its weights drawn afresh. Exactly one of them.

    ``temperature`` and ``weight`` are those of ``Distillation``. The teacher is the experiment's own model before any
    step.
    """

    student: Annotated[str | None, FILE] = Field(None, description="a path to a Keras model")
    width: float | None = Field(None, gt=0, lt=1)
    epochs: int = Field(10, ge=1, le=1000)

    @model_validator(mode="after")
    def _one_student(self) -> Settings:
        if (self.student is None) == (self.width is None):
            raise ValueError("expected exactly one of student and width")
        if self.student is not None and (self.include, self.exclude) != (["*"], []):
            raise ValueError("include and exclude go with width; a student from a file is taken as it is")
        return self

    @property
    def taught(self) -> Distillation:
        """How it learns from the experiment's own model."""
        return self


def untreated(model: Any, settings: Settings) -> list[LeftLayer]:
    """Return the layers that ``width`` cannot narrow, apart from those whose width is the model's own input or output.

    Raises:
        StepError: if no layer can be narrowed, or the student takes or gives other shapes than the model.
        ModelError: if the student cannot be loaded.
    """
    if settings.student is not None:
        _loaded(model, settings.student)
        return []
    widths, left = _widths(model, settings)
    narrow(model, widths)
    return left


def outline(model: Any, settings: Settings) -> Any:
    """Return the student (tf_keras), not trained yet; raises as ``untreated``."""
    if settings.student is None:
        return narrow(model, _widths(model, settings)[0])
    return _loaded(model, settings.student)


def rewrite(model: Any, settings: Settings, data: TrainingData, report: Report) -> Any:
    """Return the student (tf_keras), trained on the outputs of the experiment's own model, and on labels if asked.

    Raises:
        StepError, ModelError: as ``untreated``, or if labels are needed and there are none.
    """
    student = outline(model, settings)
    report.note(f"the student has {student.count_params():,} parameters, the model before {model.count_params():,}")
    fine_tune(student, data, settings, report)
    return student


def _widths(model: Any, settings: Settings) -> tuple[dict[str, int], list[LeftLayer]]:
    assert settings.width is not None
    check_graph(model)
    widths, left = narrowed(model, settings, settings.width)
    if not widths:
        named = "; ".join(f"{layer.layer}: {layer.reason}" for layer in left) or "all widths are the model's own ends"
        raise StepError(f"distillation can make no layer narrower: {named}")
    return widths, left


def _loaded(model: Any, student: str) -> Any:
    path = Path(student)
    found = as_tf_keras(load_keras(path, detect_format(path)))
    if _ends(found) != _ends(model):
        raise StepError(f"student {path.name} {_ends(found)}; the model {_ends(model)}; expected the same shapes")
    return found


def _ends(model: Any) -> str:
    takes, gives = (" and ".join(str(tuple(t.shape)) for t in ends) for ends in (model.inputs, model.outputs))
    return f"takes {takes} and gives {gives}"
