"""Messages as lines of JSON, and dataclasses as messages."""

from __future__ import annotations

import dataclasses
import json
import typing

from device_agent.checks import ProtocolError, shown

MAX_MESSAGE_BYTES = 1 << 20


def encode(message: dict[str, typing.Any]) -> bytes:
    """Return ``message`` as one line of ASCII JSON, newline included.

    Raises:
        ProtocolError: if the line is longer than ``MAX_MESSAGE_BYTES``.
    """
    line = json.dumps(message, ensure_ascii=True, separators=(",", ":"), allow_nan=False).encode("ascii") + b"\n"
    if len(line) > MAX_MESSAGE_BYTES:
        raise ProtocolError(f"message has {len(line)} bytes; at most {MAX_MESSAGE_BYTES} are allowed")
    return line


def decode(line: bytes) -> dict[str, typing.Any]:
    """Return the message in one ``line``.

    Raises:
        ProtocolError: if it is too long, not ASCII, not JSON, or not an object.
    """
    if len(line) > MAX_MESSAGE_BYTES:
        raise ProtocolError(f"message has more than {MAX_MESSAGE_BYTES} bytes")
    try:
        message = json.loads(line.decode("ascii"))
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise ProtocolError(f"message is not ASCII JSON: {error}") from error
    if not isinstance(message, dict):
        raise ProtocolError(f"message is a JSON {type(message).__name__}; expected an object")
    return message


T = typing.TypeVar("T")


def to_json(value: typing.Any) -> dict[str, typing.Any]:
    """Return a dataclass of this module as JSON-ready dicts and lists."""
    return dataclasses.asdict(value)


def from_json(kind: type[T], value: object) -> T:
    """Return ``value`` (from JSON) as the dataclass ``kind``; unknown fields are ignored.

    Raises:
        ProtocolError: if a field is missing or of another type, naming it.
    """
    return typing.cast("T", _convert(kind, value, kind.__name__))


def _convert(kind: typing.Any, value: typing.Any, where: str) -> typing.Any:
    if dataclasses.is_dataclass(kind):
        return _convert_fields(kind, value, where)
    options = _options(kind)
    if options is not None:
        if value is None:
            return None
        return _convert(options, value, where)
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, (list, tuple)):
            raise ProtocolError(f"{where} is {shown(value)}; expected a list")
        return tuple(_convert(typing.get_args(kind)[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    # An integer beyond the largest float is no number for a float.
    if kind is float and isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 1023:
        return float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ProtocolError(f"{where} is {shown(value)}; expected {kind.__name__}")
    return value


def _convert_fields(kind: typing.Any, value: typing.Any, where: str) -> typing.Any:
    if not isinstance(value, dict):
        raise ProtocolError(f"{where} is {shown(value)}; expected an object")
    hints = typing.get_type_hints(kind)
    known = {}
    for field in dataclasses.fields(kind):
        if field.name in value:
            known[field.name] = _convert(hints[field.name], value[field.name], f"{where}.{field.name}")
        elif field.default is dataclasses.MISSING:
            raise ProtocolError(f"{where}.{field.name} is missing")
    return kind(**known)


def _options(kind: typing.Any) -> typing.Any:
    if typing.get_origin(kind) is typing.Union:
        return next(option for option in typing.get_args(kind) if option is not type(None))
    return None
