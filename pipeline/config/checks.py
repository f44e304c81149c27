"""What is wrong with an experiment that no section sees alone: names that must exist, keys that exclude each other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline import compression
from pipeline.config.sections import NAME
from pipeline.yaml_file import Location, dotted, mistakes_in, shown

TASKS_FOLDER = Path(__file__).parents[2] / "models"


def known_tasks() -> list[str]:
    """Return the names of the reference tasks: the modules of ``models``."""
    return sorted(path.stem for path in TASKS_FOLDER.glob("[a-z]*.py"))


def deeper_mistakes(document: Any) -> list[tuple[Location, str]]:
    """Find what one section alone cannot see: names that must exist, keys that exclude each other, steps."""
    return [
        *_source_mistakes(document),
        *_device_mistakes(document),
        *_name_mistakes(document),
        *_variant_mistakes(document),
    ]


def _device_mistakes(document: Mapping[str, Any]) -> list[tuple[Location, str]]:
    if document.get("device") is None or document.get("devices") is None:
        return []
    return [(("device",), '"device" and "devices" exclude each other')]


def _source_mistakes(document: Mapping[str, Any]) -> list[tuple[Location, str]]:
    given = document.get("data")
    data: Mapping[str, Any] = given if isinstance(given, Mapping) else {}
    if document.get("task") is not None:
        clash = [key for key in ("model", "metric") if document.get(key) is not None]
        found: list[tuple[Location, str]] = [((key,), f'"{key}" and "task" exclude each other') for key in clash]
        if data.get("file") is not None:
            found.append((("data", "file"), 'data.file goes with "model"; a task takes data.folder'))
        return found
    missing: list[tuple[Location, str]] = [
        ((), f'"{key}" is missing; give model, metric and data.file, or one task of: {", ".join(known_tasks())}')
        for key in ("model", "metric")
        if document.get(key) is None
    ]
    if data.get("file") is None:
        missing.append((("data",), '"data.file" is missing; expected an .npz file with x_test and y_test'))
    return missing


def _name_mistakes(document: Mapping[str, Any]) -> list[tuple[Location, str]]:
    from device_agent import metrics, runtimes

    found: list[tuple[Location, str]] = []
    variants = document.get("variants")
    choices = {
        "task": known_tasks(),
        "metric": metrics.known(),
        "runtime": runtimes.known(),
        "baseline": list(variants) if isinstance(variants, Mapping) else [],
    }
    for key, known in choices.items():
        value = document.get(key)
        if isinstance(value, str) and value not in known:
            found.append(((key,), f"{key} is {shown(value)}; expected one of {', '.join(map(str, known))}"))
    return found


def _variant_mistakes(document: Mapping[str, Any]) -> list[tuple[Location, str]]:
    variants = document.get("variants")
    if not isinstance(variants, Mapping):
        return []
    found = _clashes(variants, document.get("threads"))
    for name, entries in variants.items():
        if not NAME.fullmatch(str(name)):
            found.append(
                (("variants", name), f'variant name is "{name}"; expected letters, digits, _ . and -, 64 at most')
            )
        for index, entry in enumerate(entries if isinstance(entries, list) else []):
            found += _entry_mistakes(("variants", name, index), entry)
        found += _order_mistakes(name, entries)
    return found


def _clashes(variants: Mapping[str, Any], threads: object) -> list[tuple[Location, str]]:
    """Several numbers of threads give every variant several names; none of them may be taken."""
    counts = threads if isinstance(threads, list) and len(threads) > 1 else []
    made = {f"{name}.t{count}": name for name in variants for count in counts}
    return [
        (("variants", name), f'variant name "{name}" is what "{made[name]}" is called with these threads; rename it')
        for name in variants
        if name in made
    ]


def _entry_mistakes(where: Location, entry: Any) -> list[tuple[Location, str]]:
    if not isinstance(entry, Mapping):
        return []
    if len(entry) != 1:
        return [(where, f"{dotted(where)} has {len(entry)} keys; expected one technique with its settings")]
    ((technique, settings),) = entry.items()
    if technique not in compression.known():
        known = ", ".join(compression.known())
        return [((*where, technique), f'unknown technique "{technique}"; known: {known}')]
    if settings is not None and not isinstance(settings, Mapping):
        return []
    return mistakes_in(settings or {}, compression.settings_of(technique), (*where, technique))


def _order_mistakes(name: str, entries: Any) -> list[tuple[Location, str]]:
    """A step that configures the conversion must be the last, or a later step would rewrite what is gone."""
    if not isinstance(entries, list):
        return []
    techniques = [next(iter(entry)) for entry in entries if isinstance(entry, Mapping) and len(entry) == 1]
    for index, technique in enumerate(techniques[:-1]):
        if technique in compression.known() and not compression.rewrites(technique):
            where: Location = ("variants", name, index)
            return [(where, f"{dotted(where)} is {technique}; it configures the conversion and must come last")]
    return []
