"""One module per technique; the module's name is the technique's name in YAML.

A technique has a ``Settings`` section and one or both of

* ``rewrite(model, settings, data, report) -> model``: gives another Keras model (tf_keras), perhaps after training;
* ``configure(converter, settings, data) -> None``: sets up the conversion to a flatbuffer.

``report(fraction, text)`` tells the parent how far it is. Importing a technique loads no TensorFlow.

A technique that rewrites may also have ``untreated(model, settings) -> list[Untreated]``, which names every layer with
weights that it will leave as it is, before anything is trained; its settings are then ``RewriteSettings``, and with
``strict`` such a layer is an error.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType

from pipeline.yaml_file import Section


@dataclass(frozen=True)
class Untreated:
    """A layer that a technique leaves as it is, and why."""

    layer: str
    reason: str


class RewriteSettings(Section):
    """What the settings of every technique that rewrites have in common."""

    strict: bool = False


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


def rewrites(name: str) -> bool:
    """Whether a technique gives another Keras model, rather than setting up the conversion."""
    return hasattr(technique(name), "rewrite")
