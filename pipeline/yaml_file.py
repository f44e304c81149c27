"""A YAML file as a pydantic model, with every mistake told by file, line, key, value and what is allowed."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import annotated_types
import pydantic
from pydantic.fields import FieldInfo
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from pipeline.errors import ConfigError, Mistake

Location = tuple[str | int, ...]
M = TypeVar("M", bound=pydantic.BaseModel)

_TYPE_NAMES = {int: "an integer", float: "a number", bool: "true or false", str: "text", Path: "a path"}


class Section(pydantic.BaseModel):
    """A mapping in a YAML file: unknown keys are mistakes, and so are numbers written as text."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def load_yaml(path: Path, model: type[M], more: Callable[[Any], list[tuple[Location, str]]] = lambda document: []) -> M:
    """Return the YAML file ``path`` as ``model``.

    Args:
        path: the file; its name as given is what messages begin with.
        model: the top-level section.
        more: given the document as read, returns further mistakes as (location, message).

    Raises:
        ConfigError: with all mistakes, in the file's order.
    """
    document = _read(path)
    found = [*more(document), *mistakes_in(document, model)]
    if found:
        placed = sorted({(_place(document, where), text) for where, text in found})
        raise ConfigError([Mistake(str(path), line, text) for line, text in placed])
    return model.model_validate(document)


def mistakes_in(document: Any, model: type[pydantic.BaseModel], prefix: Location = ()) -> list[tuple[Location, str]]:
    """Return what is wrong with ``document`` as ``model``, as (location, message); locations begin with ``prefix``."""
    try:
        model.model_validate(document)
    except pydantic.ValidationError as error:
        found = []
        for problem in error.errors(include_url=False):
            where = _existing(document, problem["loc"])
            found.append(((*prefix, *where), _message(model, where, prefix, problem)))
        return found
    return []


def _read(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError([Mistake(str(path), None, "no such file")]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([Mistake(str(path), None, f"cannot be read: {error}")]) from error
    try:
        document = YAML(typ="rt").load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = None if mark is None else mark.line + 1
        raise ConfigError([Mistake(str(path), line, f"not YAML: {error.problem or error.context}")]) from error
    except YAMLError as error:
        raise ConfigError([Mistake(str(path), None, f"not YAML: {error}")]) from error
    if not isinstance(document, Mapping):
        found = "nothing" if document is None else shown(document)
        raise ConfigError([Mistake(str(path), 1, f"the file holds {found}; expected a mapping of keys to values")])
    return document


def _existing(document: Any, where: Location) -> Location:
    """Return ``where`` without the parts that pydantic added for unions and dict keys."""
    kept: list[str | int] = []
    node = document
    for part in where:
        found = _child(node, part)
        if found is _ABSENT:
            continue
        node, kept = found, [*kept, part]
    return (
        (*kept, where[-1]) if where and (not kept or kept[-1] != where[-1]) and _missing(node, where) else tuple(kept)
    )


_ABSENT = object()


def _missing(node: Any, where: Location) -> bool:
    return isinstance(node, Mapping) and isinstance(where[-1], str) and where[-1] != "[key]"


def _child(node: Any, part: str | int) -> Any:
    if isinstance(node, Mapping):
        return node.get(part, _ABSENT)
    if isinstance(node, Sequence) and not isinstance(node, str) and isinstance(part, int) and part < len(node):
        return node[part]
    return _ABSENT


def _place(document: Any, where: Location) -> int:
    """Return the 1-based line of the key at ``where``, or of the nearest thing around it."""
    line, node = 0, document
    for part in where:
        child = _child(node, part)
        if child is _ABSENT:
            break
        if isinstance(node, Mapping):
            # A key that came by a YAML merge has no place of its own here: the line around it stands.
            line = node.lc.key(part)[0] if part in node.lc.data else line  # type: ignore[attr-defined]
        else:
            line = node.lc.item(part)[0]
        node = child
    return int(line) + 1


def _message(model: type[pydantic.BaseModel], where: Location, prefix: Location, problem: Any) -> str:
    key = dotted((*prefix, *where))
    section, field = _field_at(model, where)
    kind = problem["type"]
    # pydantic's own location tells a key from an item of a list; ``where`` has lost the "[key]".
    if kind == "invalid_key" or problem["loc"][-1:] == ("[key]",):
        return f"key {shown(problem['input'])} is no text; put it in quotes"
    if kind == "extra_forbidden":
        known = ", ".join(_known_keys(section)) if section else "none"
        return f'unknown key "{key}"; known: {known}'
    if kind == "missing":
        return f'"{key}" is missing; expected {_expected(field) or "a value"}'
    if kind in ("value_error", "assertion_error"):
        text = problem["msg"].split(", ", 1)[1]
        return f"{key} is {shown(problem['input'])}; {text}" if key else text
    return f"{key} is {shown(problem['input'])}; expected {_expected(field) or problem['msg']}"


def dotted(where: Location) -> str:
    """Return a location as a reader writes it: ``variants.int8[0].quantization``."""
    text = ""
    for part in where:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def shown(value: Any) -> str:
    """Return a value as it stands in a message: text in quotes, long values cut."""
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "a list"
    if value is None or isinstance(value, bool):
        # By identity: 1 and 0 would be found among the keys True and False.
        return "empty" if value is None else str(value).lower()
    text = f'"{value}"' if isinstance(value, str) else str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _known_keys(section: type[pydantic.BaseModel]) -> list[str]:
    return [field.alias or name for name, field in section.model_fields.items()]


def _field_at(
    model: type[pydantic.BaseModel], where: Location
) -> tuple[type[pydantic.BaseModel] | None, FieldInfo | None]:
    """Return the section that holds the last part of ``where``, and that part's field."""
    section: type[pydantic.BaseModel] | None = model
    field: FieldInfo | None = None
    kind: Any = model
    for part in where:
        section = _section(kind)
        if section is not None:
            by_name = {f.alias or name: f for name, f in section.model_fields.items()}
            field = by_name.get(str(part))
            kind = field.annotation if field else None
        else:
            arguments = typing.get_args(_without_none(kind))
            kind = arguments[-1 if typing.get_origin(_without_none(kind)) is dict else 0] if arguments else None
            # Of an item, not of the list that it is in.
            field = FieldInfo.from_annotation(kind) if kind else None
    return section, field


def _without_none(kind: Any) -> Any:
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        rest = [option for option in typing.get_args(kind) if option is not type(None)]
        return _without_none(rest[0]) if len(rest) == 1 else kind
    return typing.get_args(kind)[0] if typing.get_origin(kind) is typing.Annotated else kind


def _section(kind: Any) -> type[pydantic.BaseModel] | None:
    kind = _without_none(kind)
    return kind if isinstance(kind, type) and issubclass(kind, pydantic.BaseModel) else None


def _expected(field: FieldInfo | None) -> str | None:
    """Say what a field takes: its description when it has one, else its type and its limits."""
    if field is None:
        return None
    if field.description:
        return field.description
    kind = _without_none(field.annotation)
    if typing.get_origin(kind) is typing.Literal:
        return "one of " + ", ".join(str(option) for option in typing.get_args(kind))
    if _section(kind) is not None or typing.get_origin(kind) is dict:
        return "a mapping"
    if typing.get_origin(kind) in (list, tuple):
        return "a list"
    return _TYPE_NAMES.get(kind, str(kind)) + _limits(field)


def _limits(field: FieldInfo) -> str:
    low = next((m.ge for m in field.metadata if isinstance(m, annotated_types.Ge)), None)
    high = next((m.le for m in field.metadata if isinstance(m, annotated_types.Le)), None)
    above = next((m.gt for m in field.metadata if isinstance(m, annotated_types.Gt)), None)
    below = next((m.lt for m in field.metadata if isinstance(m, annotated_types.Lt)), None)
    if low is not None and high is not None:
        return f" from {low} to {high}"
    words = [("at least", low), ("above", above), ("at most", high), ("below", below)]
    said = " and ".join(f"{word} {limit}" for word, limit in words if limit is not None)
    return f" {said}" if said else ""
