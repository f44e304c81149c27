"""What one run leaves behind: a ``RunRecord``, stored as ``report.json``, schema 4.

Every derived number carries its unit in its name. An ``Estimate`` is a point with a 95 % interval.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from device_agent.protocol import BoardState, ConditionSpec, DeviceInfo, Failure, Measurement

SCHEMA = 4


@dataclass(frozen=True)
class Estimate:
    """A number and its 95 % interval; ``low`` and ``high`` are None where no interval can be given."""

    value: float
    low: float | None = None
    high: float | None = None

    @property
    def inverse(self) -> Estimate:
        """One over the number: its interval, turned round."""
        low, high = (None if bound is None else 1 / bound for bound in (self.high, self.low))
        return Estimate(1 / self.value, low, high)


@dataclass(frozen=True)
class TensorInfo:
    """One input or output of a flatbuffer."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float | None = None
    zero_point: int | None = None

    @property
    def sample_dtype(self) -> str:
        """The type that samples are in before the tensor takes them: real numbers where they are quantized for it."""
        return self.dtype if self.scale is None else "float32"


@dataclass(frozen=True)
class TensorEvidence:
    """The weights of one layer or operator: the share of zeros, and how many distinct values there are."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    zeros: float
    distinct: int

    @property
    def count(self) -> int:
        """How many values it has."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class LeftLayer:
    """A layer, or an operator, that a step leaves as it is, and why; ``chosen`` if it could have been treated."""

    layer: str
    reason: str
    chosen: bool = False


@dataclass(frozen=True)
class StepEvidence:
    """What one step did, as found in what it left behind.

    After a step that rewrites the model, ``tensors`` are the model's weights and the sizes those of its float32
    flatbuffer; after the conversion, both are of the artifact. ``macs`` are multiply-accumulate operations of one
    inference. ``score`` is the metric on this machine over ``samples`` test samples, ``snr_db`` the signal-to-noise
    ratio of the outputs against the source model's, None when they are equal.
    """

    step: str
    parameters: int
    macs: int
    tensors: tuple[TensorEvidence, ...]
    size_bytes: int
    gzip_bytes: int
    score: float
    snr_db: float | None
    samples: int
    left: tuple[LeftLayer, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def zeros(self) -> float:
        """The share of zeros over all ``tensors``."""
        total = sum(tensor.count for tensor in self.tensors)
        return sum(tensor.zeros * tensor.count for tensor in self.tensors) / total if total else 0.0

    @property
    def most_distinct(self) -> int:
        """The most distinct values that any tensor has."""
        return max((tensor.distinct for tensor in self.tensors), default=0)


@dataclass(frozen=True)
class Artifact:
    """One flatbuffer, addressed by its content, with the recipe that made it and what each of its steps did."""

    sha256: str
    path: str
    size_bytes: int
    gzip_bytes: int
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    steps: tuple[str, ...]
    toolchain: dict[str, str]
    evidence: tuple[StepEvidence, ...] = ()


@dataclass(frozen=True)
class Numbers:
    """What is reported of a measurement, derived from its raw samples.

    ``score`` is the metric as a fraction with its Wilson interval; ``score_change_pp`` is against the baseline variant
    in percentage points, None for the baseline itself. ``p50_ns``, ``p90_ns`` and ``p99_ns`` are medians over processes
    with a bootstrap over processes, of one invoke, which takes a whole batch where there is one; a percentile is None
    below the samples that it needs. ``load_ns`` and ``first_invoke_ns`` are medians over processes, ``peak_rss_bytes``
    the largest. Of an emulated board there is no time: all of them are None.
    """

    score: Estimate
    score_change_pp: float | None
    p50_ns: Estimate | None
    p90_ns: Estimate | None
    load_ns: float | None
    first_invoke_ns: float | None
    peak_rss_bytes: int
    p99_ns: Estimate | None = None

    @property
    def emulated(self) -> bool:
        """Whether there are no times, since the board is emulated."""
        return self.p50_ns is None


@dataclass(frozen=True)
class Comparison:
    """One variant against the baseline: by the blocks that were timed side by side, and by the samples both were given.

    ``time_ratio`` is the variant's p50 over the baseline's, below 1 when it takes less. ``speed`` is "faster",
    "slower", "as fast" or "not shown": the first three only when the interval lies beyond, or within, the smallest
    effect. Of an emulated board there is no ratio, and the speed is "emulated".
    ``lost`` samples only the baseline gets right and ``gained`` only the variant; ``p_value`` is McNemar's exact one,
    None where the metric is not right or wrong. ``accuracy`` is "better", "worse" or "not shown", empty without it.
    """

    baseline: str
    time_ratio: Estimate | None
    smallest_effect: float
    speed: str
    lost: int = 0
    gained: int = 0
    p_value: float | None = None
    accuracy: str = ""


@dataclass(frozen=True)
class OperatorTime:
    """One operator of an average profiled invoke; ``source`` is who ran it: "xnnpack", "builtin" or "delegate"."""

    place: int
    name: str
    source: str
    mean_ns: float
    share: float


@dataclass(frozen=True)
class VariantRecord:
    """One variant of one run: built or not, measured or not, and whether its numbers may be used.

    ``invalid_reasons`` is empty for a VALID variant; ``notes`` are what a reader should know all the same;
    ``from_cache`` tells that nothing had to be built, ``reused`` that an earlier run measured it; ``threads`` is what
    it is run with, ``operators`` where its time goes.
    """

    name: str
    steps: tuple[str, ...]
    artifact: Artifact | None
    measurement: Measurement | None
    failure: Failure | None
    numbers: Numbers | None
    invalid_reasons: tuple[str, ...]
    from_cache: bool = False
    reused: bool = False
    comparison: Comparison | None = None
    notes: tuple[str, ...] = ()
    threads: int = 1
    operators: tuple[OperatorTime, ...] = ()

    @property
    def valid(self) -> bool:
        """Whether the variant was built and measured, and nothing speaks against its numbers."""
        return self.numbers is not None and not self.invalid_reasons


@dataclass(frozen=True)
class BudgetLine:
    """One limit of the budget: its name in the YAML (unit included) and its value."""

    name: str
    limit: float


@dataclass(frozen=True)
class Verdict:
    """Which variant may ship.

    ``misses`` maps each variant to the limits it misses (an empty tuple when it meets all); ``chosen`` is the best that
    meets the budget, None when none does. Without a budget every VALID variant meets it.
    """

    budget: tuple[BudgetLine, ...]
    misses: dict[str, tuple[str, ...]]
    chosen: str | None
    reason: str


@dataclass(frozen=True)
class RunRecord:
    """One run of one experiment on one device.

    ``conditions`` are what a block had to meet to count; ``before`` and ``after`` the board around the job, which
    began and ended at ``measured_utc``: earlier than the run, when it was taken over.
    """

    run_id: str
    experiment: str
    experiment_file: str
    started_utc: str
    finished_utc: str
    device_name: str
    transport: str
    device: DeviceInfo
    metric: str
    samples: int
    data_source: str
    baseline: str
    variants: tuple[VariantRecord, ...]
    verdict: Verdict
    host: dict[str, str]
    conditions: ConditionSpec = field(default_factory=ConditionSpec)
    before: BoardState | None = None
    after: BoardState | None = None
    measured_utc: tuple[str, str] = ("", "")
    schema: int = SCHEMA
