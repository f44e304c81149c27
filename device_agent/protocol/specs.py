"""What the host asks for: a job, its models, its data, how numbers are taken and under which conditions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from device_agent.checks import (
    ProtocolError,
    check_file_name,
    check_identifier,
    check_range,
    check_sha256,
    shown,
)

# What takes operators over from the runtime's own kernels: "xnnpack" is what every runtime does by default.
DELEGATES = ("xnnpack", "none", "gpu")


@dataclass(frozen=True)
class ModelSpec:
    """One flatbuffer to measure: the blob ``sha256``, opened by ``runtime`` with ``threads`` threads and ``delegate``.

    ``batch`` is how many samples one timed invoke takes; scores are always taken one sample at a time.
    """

    name: str
    sha256: str
    runtime: str
    threads: int = 1
    delegate: str = "xnnpack"
    batch: int = 1

    def __post_init__(self) -> None:
        check_file_name("model name", self.name)
        check_sha256("model sha256", self.sha256)
        check_identifier("runtime", self.runtime)
        check_range("threads", self.threads, 1, 256)
        check_range("batch", self.batch, 1, 1 << 16)
        if self.delegate not in DELEGATES:
            raise ProtocolError(f"delegate is {shown(self.delegate)}; expected one of {', '.join(DELEGATES)}")


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

    With a ``precision`` above 0 further processes follow, until for every model half the width of the 95 % interval of
    its median is at most that share of the median, or timing has taken ``time_limit_s``.
    ``sustained_s`` above 0 asks for a pass of that length, ``profile`` for one that times each operator.
    """

    processes: int = 5
    warmup_s: float = 0.5
    timing_s: float = 1.0
    min_invokes: int = 64
    max_invokes: int = 20000
    seed: int = 0
    precision: float = 0.0
    time_limit_s: float = 600.0
    sustained_s: float = 0.0
    profile: bool = False

    def __post_init__(self) -> None:
        check_range("precision", self.precision, 0, 1)
        check_range("time_limit_s", self.time_limit_s, 0, 604800)
        check_range("sustained_s", self.sustained_s, 0, 86400)
        check_range("processes", self.processes, 1, 1000)
        check_range("warmup_s", self.warmup_s, 0, 3600)
        check_range("timing_s", self.timing_s, 0, 3600)
        check_range("min_invokes", self.min_invokes, 1, 1_000_000)
        check_range("max_invokes", self.max_invokes, self.min_invokes, 1_000_000)


@dataclass(frozen=True)
class LimitSpec:
    """What one child process may use before it is stopped; ``memory_mib`` and ``cpu_s`` 0 mean no limit."""

    wall_s: float = 600.0
    memory_mib: int = 0
    cpu_s: int = 0

    def __post_init__(self) -> None:
        check_range("cpu_s", self.cpu_s, 0, 604800)
        check_range("wall_s", self.wall_s, 0.1, 86400)
        check_range("memory_mib", self.memory_mib, 0, 1 << 24)


@dataclass(frozen=True)
class ConditionSpec:
    """Under which conditions a timed block counts; None means that it is not looked at.

    ``max_temperature_c`` is of the hottest zone, before and after; ``max_other_cpus`` how many cores others may keep
    busy meanwhile, what a hypervisor takes away included; ``min_clock_share`` the least share of the highest clock.
    Throttling and swapping disturb a block in any case. A disturbed block is taken again at most ``retries`` times,
    each time after a pause: until the board is ``cooldown_c`` below ``max_temperature_c``, at most ``cooldown_s``.
    """

    max_temperature_c: Optional[float] = 80.0
    max_other_cpus: Optional[float] = 0.5
    min_clock_share: Optional[float] = None
    retries: int = 3
    cooldown_s: float = 60.0
    cooldown_c: float = 5.0

    def __post_init__(self) -> None:
        check_range("retries", self.retries, 0, 100)
        check_range("cooldown_s", self.cooldown_s, 0, 3600)
        check_range("cooldown_c", self.cooldown_c, 0, 100)


@dataclass(frozen=True)
class JobSpec:
    """One job: models measured together, interleaved in random order, scored on the same data with one metric.

    ``baseline`` names the model whose outputs the others' are compared with; empty for none. ``owner`` is whose job it
    is, such as "ana@laptop": the same job of two owners is two jobs, so that neither takes the other's result away.
    """

    name: str
    models: tuple[ModelSpec, ...]
    data: DataSpec
    metric: str
    measure: MeasureSpec = MeasureSpec()
    limits: LimitSpec = LimitSpec()
    conditions: ConditionSpec = ConditionSpec()
    baseline: str = ""
    owner: str = ""
    schema: int = 2

    def __post_init__(self) -> None:
        check_identifier("metric", self.metric)
        check_range("length of the job's name", len(self.name), 0, 200)
        check_range("length of the job's owner", len(self.owner), 0, 200)
        check_range("number of models", len(self.models), 1, 1000)
        names = [model.name for model in self.models]
        if len(set(names)) != len(names):
            raise ProtocolError(f"model names are {names}; expected no name twice")
        if self.baseline and self.baseline not in names:
            raise ProtocolError(f"baseline is {shown(self.baseline)}; expected one of {names}")
