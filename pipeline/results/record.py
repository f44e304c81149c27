"""What one run leaves behind: a ``RunRecord``, stored as ``report.json``, schema 1.

Every derived number carries its unit in its name. An ``Estimate`` is a point with a 95 % interval.
"""

from __future__ import annotations

from dataclasses import dataclass

from device_agent.protocol import DeviceInfo, Failure, Measurement

SCHEMA = 1


@dataclass(frozen=True)
class Estimate:
    """A number and its 95 % interval; ``low`` and ``high`` are None where no interval can be given."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class TensorInfo:
    """One input or output of a flatbuffer."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float | None = None
    zero_point: int | None = None


@dataclass(frozen=True)
class Artifact:
    """One flatbuffer, addressed by its content, with the recipe that made it."""

    sha256: str
    path: str
    size_bytes: int
    gzip_bytes: int
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    steps: tuple[str, ...]
    toolchain: dict[str, str]


@dataclass(frozen=True)
class Numbers:
    """What is reported of a measurement, derived from its raw samples.

    ``score`` is the metric as a fraction with its Wilson interval; ``score_change_pp`` is against the baseline variant
    in percentage points, None for the baseline itself. ``p50_ns`` and ``p90_ns`` are medians over processes with a
    bootstrap over processes; ``p90_ns`` is None below the 64 samples it needs. ``load_ns`` and ``first_invoke_ns`` are
    medians over processes, ``peak_rss_bytes`` the largest.
    """

    score: Estimate
    score_change_pp: float | None
    p50_ns: Estimate
    p90_ns: Estimate | None
    load_ns: float
    first_invoke_ns: float
    peak_rss_bytes: int


@dataclass(frozen=True)
class VariantRecord:
    """One variant of one run: built or not, measured or not, and whether its numbers may be used.

    ``invalid_reasons`` is empty for a VALID variant. ``from_cache`` tells that nothing had to be built, ``reused`` that
    an earlier run measured it.
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
    """One run of one experiment on one device."""

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
    schema: int = SCHEMA
