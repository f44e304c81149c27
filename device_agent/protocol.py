"""What host and agent say to each other: framing, version, and the types that both sides share.

Messages are JSON-RPC 2.0, one per line, ASCII, at most ``MAX_MESSAGE_BYTES``. The agent speaks first: a ``hello``
notification whose params are a ``Hello``. File content never travels here: it goes by SFTP or by copying into the
places that ``part_path`` and ``job_file_path`` name.

Methods (params → result):

* ``status`` {} → ``{"home", "free_bytes", "jobs": [{"job_id", "name", "state"}]}``
* ``blob.missing`` {"sha256": [...]} → ``{"missing": [{"sha256", "part_bytes", "part_sha256"}]}``
* ``blob.commit`` {"sha256", "size_bytes"} → ``{}`` once the content is verified and in its place
* ``job.submit`` {"spec": JobSpec} → ``{"job_id", "state"}``; the same spec is the same job
* ``job.follow`` {"job_id", "after"} → ``job.event`` notifications (JobEvent), then ``{"state"}``
* ``job.result`` {"job_id"} → ``JobResult``
* ``job.acknowledge`` {"job_id"} → ``{}``; the agent may forget the job
* ``job.cancel`` {"job_id"} → ``{"state"}``
"""

from __future__ import annotations

import dataclasses
import json
import re
import typing
from dataclasses import dataclass
from typing import Optional

PROTOCOL_VERSION = 1
MAX_MESSAGE_BYTES = 1 << 20

# JSON-RPC error codes: the first four are the standard's, the others are ours.
PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
BLOB_MISMATCH = 1
UNKNOWN_JOB = 2
DISK_FULL = 3
NOT_FINISHED = 4
BLOB_MISSING = 5

# A job is in exactly one of these states; the last three are final.
JOB_STATES = ("queued", "running", "done", "failed", "cancelled")
FINAL_STATES = ("done", "failed", "cancelled")

_SHA256 = re.compile(r"[0-9a-f]{64}")
_IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_JOB_ID = re.compile(r"[0-9a-f]{16}")


class ProtocolError(ValueError):
    """A message that is not of the protocol's form; the text says what was wrong and what is allowed."""


def check_sha256(what: str, value: object) -> str:
    """Return ``value`` when it is 64 lower-case hexadecimal digits.

    Raises:
        ProtocolError: otherwise.
    """
    return _matching(_SHA256, what, value, "64 lower-case hexadecimal digits")


def check_identifier(what: str, value: object) -> str:
    """Return ``value`` when it is a letter followed by up to 63 letters, digits or underscores."""
    return _matching(_IDENTIFIER, what, value, "a letter, then letters, digits or underscores, 64 at most")


def check_file_name(what: str, value: object) -> str:
    """Return ``value`` when it can be a file's name: no separator, no leading dot, 128 characters at most."""
    return _matching(_FILE_NAME, what, value, "letters, digits, _ . and -, not starting with a sign, 128 at most")


def check_job_id(value: object) -> str:
    """Return ``value`` when it is a job's id: 16 lower-case hexadecimal digits."""
    return _matching(_JOB_ID, "job_id", value, "16 lower-case hexadecimal digits")


def check_range(what: str, value: float, low: float, high: float) -> None:
    """Raise ProtocolError unless ``low <= value <= high``."""
    if not low <= value <= high:
        raise ProtocolError(f"{what} is {value!r}; expected {low} to {high}")


def _matching(pattern: re.Pattern[str], what: str, value: object, allowed: str) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise ProtocolError(f"{what} is {_shown(value)}; expected {allowed}")
    return value


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


@dataclass(frozen=True)
class ModelSpec:
    """One flatbuffer to measure: the blob ``sha256``, opened by ``runtime`` with ``threads`` threads."""

    name: str
    sha256: str
    runtime: str
    threads: int = 1

    def __post_init__(self) -> None:
        check_file_name("model name", self.name)
        check_sha256("model sha256", self.sha256)
        check_identifier("runtime", self.runtime)
        check_range("threads", self.threads, 1, 256)


@dataclass(frozen=True)
class DataSpec:
    """The samples to score: two ``.npy`` blobs, inputs [samples, …] and labels [samples, …].

    The model is given ``inputs * scale + offset`` as float32 (quantized by the model's own parameters where its input
    is an integer type), one sample at a time.
    """

    inputs_sha256: str
    labels_sha256: str
    samples: int
    scale: float = 1.0
    offset: float = 0.0

    def __post_init__(self) -> None:
        check_sha256("inputs_sha256", self.inputs_sha256)
        check_sha256("labels_sha256", self.labels_sha256)
        check_range("samples", self.samples, 1, 1 << 40)


@dataclass(frozen=True)
class MeasureSpec:
    """How numbers are taken: ``processes`` fresh processes per model, each warmed up and then timed.

    A process warms up for at least ``warmup_s`` and until the medians of successive blocks agree, then times at least
    ``min_invokes`` invokes and at least ``timing_s`` seconds, at most ``max_invokes``. ``seed`` shuffles the order.
    """

    processes: int = 5
    warmup_s: float = 0.5
    timing_s: float = 1.0
    min_invokes: int = 64
    max_invokes: int = 20000
    seed: int = 0

    def __post_init__(self) -> None:
        check_range("processes", self.processes, 1, 1000)
        check_range("warmup_s", self.warmup_s, 0, 3600)
        check_range("timing_s", self.timing_s, 0, 3600)
        check_range("min_invokes", self.min_invokes, 1, 1_000_000)
        check_range("max_invokes", self.max_invokes, self.min_invokes, 1_000_000)


@dataclass(frozen=True)
class LimitSpec:
    """What one child process may use before it is stopped; ``memory_mib`` 0 means no limit."""

    wall_s: float = 600.0
    memory_mib: int = 0

    def __post_init__(self) -> None:
        check_range("wall_s", self.wall_s, 0.1, 86400)
        check_range("memory_mib", self.memory_mib, 0, 1 << 24)


@dataclass(frozen=True)
class JobSpec:
    """One job: models measured together, interleaved in random order, scored on the same data with one metric."""

    name: str
    models: tuple[ModelSpec, ...]
    data: DataSpec
    metric: str
    measure: MeasureSpec = MeasureSpec()
    limits: LimitSpec = LimitSpec()
    schema: int = 1

    def __post_init__(self) -> None:
        check_identifier("metric", self.metric)
        check_range("length of the job's name", len(self.name), 0, 200)
        check_range("number of models", len(self.models), 1, 1000)
        names = [model.name for model in self.models]
        if len(set(names)) != len(names):
            raise ProtocolError(f"model names are {names}; expected no name twice")


@dataclass(frozen=True)
class DeviceInfo:
    """What the board says of itself; None where it does not say."""

    model: Optional[str]
    machine: str
    cores: int
    ram_bytes: Optional[int]
    os: Optional[str]
    kernel: str
    python: str


@dataclass(frozen=True)
class RuntimeInfo:
    """One runtime of the agent: its version, or why it cannot be used."""

    name: str
    version: Optional[str]
    problem: Optional[str] = None


@dataclass(frozen=True)
class Hello:
    """The agent's first words."""

    protocol: int
    agent_version: str
    home: str
    free_bytes: int
    device: DeviceInfo
    runtimes: tuple[RuntimeInfo, ...]


@dataclass(frozen=True)
class JobEvent:
    """One step of a job: ``seq`` counts from 1 without gaps. ``stage`` is "start", "timing", "scoring" or "finish"."""

    job_id: str
    seq: int
    stage: str
    model: str
    done: int
    total: int


@dataclass(frozen=True)
class TimingBlock:
    """What one fresh process measured. The raw ``invoke_ns`` (int64 [invokes]) are in the job's file ``file_name``."""

    process: int
    load_ns: int
    first_invoke_ns: int
    warmup_invokes: int
    invokes: int
    median_ns: int
    peak_rss_bytes: int
    file_name: str


@dataclass(frozen=True)
class Score:
    """The metric over ``samples`` samples; one value a sample (float32 [samples]) is in the job's ``file_name``."""

    metric: str
    value: float
    samples: int
    file_name: str


@dataclass(frozen=True)
class Measurement:
    """All that was measured of one model."""

    model: str
    runtime: str
    runtime_version: str
    threads: int
    blocks: tuple[TimingBlock, ...]
    score: Score


@dataclass(frozen=True)
class Failure:
    """Why one model has no measurement.

    ``kind`` is "load", "invoke", "metric", "data", "crash", "timeout", "memory", "disk", "runtime" (not usable) or
    "internal" (a bug of the agent; its log has the traceback).
    ``message`` is one line; ``detail`` the last lines of the child's stderr.
    """

    model: str
    kind: str
    message: str
    detail: str = ""


@dataclass(frozen=True)
class JobFile:
    """A file of a finished job, to be fetched from ``job_file_path(home, job_id, name)``."""

    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class JobResult:
    """A finished job: each model is in ``measurements`` or in ``failures``; in a cancelled job, those it got to."""

    job_id: str
    state: str
    started_utc: str
    finished_utc: str
    device: DeviceInfo
    measurements: tuple[Measurement, ...]
    failures: tuple[Failure, ...]
    files: tuple[JobFile, ...]
    schema: int = 1


def part_path(home: str, sha256: str) -> str:
    """Return where content is put before ``blob.commit``: on the file system of the store, under a name of its own."""
    return f"{home}/blobs/.part-{check_sha256('sha256', sha256)}"


def blob_path(home: str, sha256: str) -> str:
    """Return where verified content lies."""
    return f"{home}/blobs/{check_sha256('sha256', sha256)}"


def job_file_path(home: str, job_id: str, name: str) -> str:
    """Return where a job's file lies until the job is acknowledged."""
    return f"{home}/jobs/{check_job_id(job_id)}/files/{check_file_name('file name', name)}"


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
            raise ProtocolError(f"{where} is {_shown(value)}; expected a list")
        return tuple(_convert(typing.get_args(kind)[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    # An integer beyond the largest float is no number for a float.
    if kind is float and isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 1023:
        return float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ProtocolError(f"{where} is {_shown(value)}; expected {kind.__name__}")
    return value


def _convert_fields(kind: typing.Any, value: typing.Any, where: str) -> typing.Any:
    if not isinstance(value, dict):
        raise ProtocolError(f"{where} is {_shown(value)}; expected an object")
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
