"""One module per technique; the module's name is the technique's name in YAML.

A technique has a ``Settings`` section and one of

* ``rewrite(model, settings, data, report) -> model``: gives another Keras model (tf_keras), perhaps after training;
* ``convert(source, settings, data, report) -> bytes``: gives the flatbuffer of ``source``, a ``Convertible``.

``report`` is a ``Report``: how far it is, and what a reader should know. Importing a technique loads no TensorFlow.
What several techniques share stands in modules whose names begin with an underscore.

A technique that rewrites has ``untreated(model, settings) -> list[LeftLayer]`` too, which names every layer with
weights that it will leave as it is, before anything is trained, or raises StepError when it can treat none. One that
makes other layers of them has ``outline(model, settings) -> model``: what it will give, but for the training, which is
what the steps after it are then asked about.

A technique that converts has ``untreated(source, settings, data) -> list[LeftLayer]``, which names every operator that
it will leave, by a trial on a model that has not been trained yet. It may have ``calibration_indices(settings, data) ->
list[int]`` too: the training samples that it calibrates with, which are kept in the artifact's recipe.

With ``strict`` in its settings what a step cannot treat is an error; what it was told to leave is none.
"""

from __future__ import annotations

import fnmatch
import importlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from pydantic import Field

from pipeline.errors import StepError
from pipeline.results.record import LeftLayer
from pipeline.yaml_file import Section


class Report(Protocol):
    """What a technique tells while it works."""

    def __call__(self, fraction: float, text: str) -> None:
        """Tell how much is done, from 0 to 1, and a few words."""

    def note(self, text: str) -> None:
        """Keep a sentence for the record: a choice that was made, a warning."""

    def leave(self, layer: str, reason: str, chosen: bool = False) -> None:
        """Keep that a layer, or an operator, was left as it is; ``chosen`` if it could have been treated."""


class NoReport:
    """A ``Report`` that nobody reads."""

    def __call__(self, fraction: float, text: str) -> None:
        """Do nothing."""

    def note(self, text: str) -> None:
        """Do nothing."""

    def leave(self, layer: str, reason: str, chosen: bool = False) -> None:
        """Do nothing."""


class StepSettings(Section):
    """What the settings of every technique have in common: with ``strict``, what cannot be treated is an error."""

    strict: bool = False

    def check(self, left: Iterable[LeftLayer]) -> None:
        """Raise StepError for layers that could not be treated, when that is an error."""
        found = [layer for layer in left if not layer.chosen]
        if found and self.strict:
            named = "; ".join(f"{layer.layer}: {layer.reason}" for layer in found)
            raise StepError(f"strict is true, and these layers cannot be treated: {named}")


class RewriteSettings(StepSettings):
    """What the settings of every technique that rewrites have in common.

    ``include`` and ``exclude`` are patterns of layer names, as a shell has them; a layer is treated when it matches one
    of the first and none of the second.
    """

    include: list[str] = Field(default=["*"], min_length=1)
    exclude: list[str] = Field(default=[])

    def chooses(self, layer: str) -> bool:
        """Whether a layer of this name is to be treated."""
        return _matches(layer, self.include) and not _matches(layer, self.exclude)


class ConvertSettings(StepSettings):
    """What the settings of every technique that converts have in common."""


class FilePath:
    """Marks a setting that is the path of a file or a folder: see ``FILE``."""


FILE = FilePath()
"""Annotates a setting, ``Annotated[str | None, FILE]``: the path in the YAML is relative to the experiment's file, the
technique is given that of our own copy, and what is built depends on the content, not on the path."""


def _matches(name: str, patterns: list[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def not_chosen(layer: Any) -> LeftLayer:
    """Return what is said of a layer that ``include`` and ``exclude`` leave out."""
    return LeftLayer(layer.name, f"{type(layer).__name__}: left out by include or exclude", chosen=True)


@cache
def known() -> tuple[str, ...]:
    """Return the names of all techniques."""
    return tuple(sorted(path.stem for path in Path(__file__).parent.glob("[a-z]*.py")))


def technique(name: str) -> ModuleType:
    """Return the module of a technique.

    Raises:
        ValueError: for an unknown name; the text lists those that exist.
    """
    if name not in known():
        raise ValueError(f'unknown technique "{name}"; known: {", ".join(known())}')
    return importlib.import_module(f"pipeline.compression.{name}")


def settings_of(name: str) -> type[Section]:
    """Return the section that a technique's settings must fit."""
    settings: type[Section] = technique(name).Settings
    return settings


def file_settings(name: str) -> list[str]:
    """Return the names of a technique's settings that are paths."""
    return [key for key, field in settings_of(name).model_fields.items() if FILE in field.metadata]


def rewrites(name: str) -> bool:
    """Whether a technique gives another Keras model, rather than a flatbuffer."""
    return hasattr(technique(name), "rewrite")
