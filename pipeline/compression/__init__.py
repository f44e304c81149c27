"""One module per technique; the module's name is the technique's name in YAML.

A technique has a ``Settings`` section and one of

* ``rewrite(model, settings, data, report) -> model``: gives another Keras model (tf_keras), perhaps after training;
* ``convert(source, settings, data, report) -> bytes``: gives the flatbuffer of ``source``, a ``Convertible``.

``report`` is a ``Report``: how far it is, and what a reader should know. Importing a technique loads no TensorFlow.
What several techniques share stands in modules whose names begin with an underscore.

A technique that rewrites has ``untreated(model, settings) -> list[LeftLayer]`` too, which names every layer with
weights that it will leave as it is, before anything is trained, or raises StepError when it can treat none; its
settings are ``RewriteSettings``, and with ``strict`` such a layer is an error.

A technique that converts may have two more: ``calibration_indices(settings, data) -> list[int]`` gives the training
samples that it calibrates with, which are kept in the artifact's recipe, and ``check_runtime(settings, runtime)``
raises StepError for what is known not to run there, before any step is begun.
"""

from __future__ import annotations

import fnmatch
import importlib
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from pydantic import Field

from pipeline.results.record import LeftLayer
from pipeline.yaml_file import Section


class Report(Protocol):
    """What a technique tells while it works."""

    def __call__(self, fraction: float, text: str) -> None:
        """Tell how much is done, from 0 to 1, and a few words."""

    def note(self, text: str) -> None:
        """Keep a sentence for the record: a choice that was made, a warning."""

    def leave(self, layer: str, reason: str) -> None:
        """Keep that a layer, or an operator, was left as it is."""


class NoReport:
    """A ``Report`` that nobody reads."""

    def __call__(self, fraction: float, text: str) -> None:
        """Do nothing."""

    def note(self, text: str) -> None:
        """Do nothing."""

    def leave(self, layer: str, reason: str) -> None:
        """Do nothing."""


class RewriteSettings(Section):
    """What the settings of every technique that rewrites have in common.

    ``include`` and ``exclude`` are patterns of layer names, as a shell has them; a layer is treated when it matches one
    of the first and none of the second.
    """

    strict: bool = False
    include: list[str] = Field(default=["*"], min_length=1)
    exclude: list[str] = Field(default=[])

    def chooses(self, layer: str) -> bool:
        """Whether a layer of this name is to be treated."""
        return _matches(layer, self.include) and not _matches(layer, self.exclude)


class ConvertSettings(Section):
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
    return LeftLayer(layer.name, f"{type(layer).__name__}: left out by include or exclude")


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
