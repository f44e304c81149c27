"""What comes of a job: events while it runs, then a measurement or a failure for each model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from device_agent.protocol.device import BoardState, DeviceInfo, Reading

# A job is in exactly one of these states; the last three are final.
JOB_STATES = ("queued", "running", "done", "failed", "cancelled")
FINAL_STATES = ("done", "failed", "cancelled")


@dataclass(frozen=True)
class JobEvent:
    """One step of a job: ``seq`` counts from 1 without gaps.

    ``stage`` is "start", "timing", "cooldown", "scoring", "profile", "power", "sustained" or "finish".
    """

    job_id: str
    seq: int
    stage: str
    model: str
    done: int
    total: int


@dataclass(frozen=True)
class BlockConditions:
    """The board right before the first and right after the last timed invoke of a block; None where it does not say.

    Temperatures are of the hottest zone, clocks of the fastest core. ``other_cpus`` is how many cores others kept busy
    meanwhile. ``disturbances`` says in words what speaks against the block; empty when nothing does.
    """

    temperature_before_c: Optional[float] = None
    temperature_after_c: Optional[float] = None
    clock_before_mhz: Optional[float] = None
    clock_after_mhz: Optional[float] = None
    other_cpus: Optional[float] = None
    disturbances: tuple[str, ...] = ()


@dataclass(frozen=True)
class MemorySplit:
    """By how much the largest resident set of a fresh process grew with each step, in bytes.

    ``runtime_bytes`` is Python, numpy and the runtime's libraries; then opening the model; then the first inference.
    """

    runtime_bytes: int
    load_bytes: int
    first_invoke_bytes: int


@dataclass(frozen=True)
class TimingBlock:
    """What one fresh process measured. The raw ``invoke_ns`` (int64 [invokes]) are in the job's file ``file_name``.

    ``attempt`` counts from 0, above that when earlier ones were disturbed; ``elapsed_s`` is the block's wall time, the
    start of its process included.
    """

    process: int
    load_ns: int
    first_invoke_ns: int
    warmup_invokes: int
    invokes: int
    median_ns: int
    peak_rss_bytes: int
    file_name: str
    memory: MemorySplit = MemorySplit(0, 0, 0)
    conditions: BlockConditions = BlockConditions()
    elapsed_s: float = 0.0
    attempt: int = 0


@dataclass(frozen=True)
class Score:
    """The metric over ``samples`` samples; one value a sample (float32 [samples]) is in the job's ``file_name``."""

    metric: str
    value: float
    samples: int
    file_name: str


@dataclass(frozen=True)
class OutputParity:
    """How far one output is from the baseline's on the same device and runtime, over ``samples`` samples.

    ``snr_db`` is 10 log10(sum of squares of the baseline's output / sum of squares of the difference), None when there
    is no difference at all.
    """

    output: str
    snr_db: Optional[float]
    largest_difference: float
    samples: int


@dataclass(frozen=True)
class Delegation:
    """What the delegate that was asked for took over; the list by operator is in the job's file ``file_name``.

    ``left`` names the kinds of operators that stayed with the runtime's own kernels.
    """

    delegate: str
    operators: int
    delegated: int
    left: tuple[str, ...]
    file_name: str


@dataclass(frozen=True)
class Scored:
    """What the score pass of a model has found."""

    score: Score
    parity: tuple[OutputParity, ...]
    delegation: Optional[Delegation]


@dataclass(frozen=True)
class Profile:
    """A pass in which the runtime timed each operator; the list is in the job's file ``file_name``.

    ``operators_ns`` is the sum over operators of an average invoke, ``invoke_ns`` the median of that very pass.
    ``problem`` says why there is no profile.
    """

    invokes: int = 0
    operators_ns: float = 0.0
    invoke_ns: float = 0.0
    file_name: str = ""
    problem: str = ""


@dataclass(frozen=True)
class Power:
    """Average power over a pass of invokes, by rail and in sum, and the energy of one invoke, in millijoules.

    ``problem`` says why there is none.
    """

    invokes: int = 0
    duration_s: float = 0.0
    rails_w: tuple[Reading, ...] = ()
    mean_w: float = 0.0
    energy_per_invoke_mj: float = 0.0
    problem: str = ""


@dataclass(frozen=True)
class SustainedMinute:
    """One minute of the sustained pass, and the board at its end."""

    minute: int
    invokes: int
    p50_ns: int
    temperature_c: Optional[float]
    clock_mhz: Optional[float]
    throttled: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sustained:
    """Invokes without a pause for as long as asked, minute by minute, on a board that was as hot as ``start_c``.

    ``problem`` says why it broke off.
    """

    minutes: tuple[SustainedMinute, ...] = ()
    start_c: Optional[float] = None
    problem: str = ""


@dataclass(frozen=True)
class Measurement:
    """All that was measured of one model; ``retaken`` counts the disturbed blocks that were taken again."""

    model: str
    runtime: str
    runtime_version: str
    threads: int
    blocks: tuple[TimingBlock, ...]
    score: Score
    delegate: str = "xnnpack"
    batch: int = 1
    retaken: int = 0
    parity: tuple[OutputParity, ...] = ()
    delegation: Optional[Delegation] = None
    profile: Optional[Profile] = None
    power: Optional[Power] = None
    sustained: Optional[Sustained] = None


@dataclass(frozen=True)
class Failure:
    """Why one model has no measurement.

    ``kind`` is "load", "invoke", "metric", "data", "crash", "timeout", "memory", "disk", "delegate" or "runtime" (not
    usable), or "internal" (a bug of the agent; its log has the traceback).
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
    """A finished job: each model is in ``measurements`` or in ``failures``; in a cancelled job, those it got to.

    ``before`` and ``after`` are the board when the job first began and when it ended.
    """

    job_id: str
    state: str
    started_utc: str
    finished_utc: str
    device: DeviceInfo
    measurements: tuple[Measurement, ...]
    failures: tuple[Failure, ...]
    files: tuple[JobFile, ...]
    before: Optional[BoardState] = None
    after: Optional[BoardState] = None
    schema: int = 2
