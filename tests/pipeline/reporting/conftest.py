"""A realistic record: five variants of Fashion-MNIST, one that failed and one that was disturbed."""

from __future__ import annotations

import dataclasses

import pytest

from device_agent.protocol import (
    BoardState,
    DeviceInfo,
    Failure,
    Measurement,
    MemorySplit,
    OutputParity,
    Power,
    Reading,
    Score,
    Sustained,
    SustainedMinute,
    TimingBlock,
)
from pipeline.results.fleet_record import DeviceFailure, DeviceOutcome, FleetRecord
from pipeline.results.fleet_store import FleetRun
from pipeline.results.fleet_verdict import judge_fleet
from pipeline.results.record import (
    Artifact,
    BudgetLine,
    Comparison,
    Estimate,
    Numbers,
    OperatorTime,
    RunRecord,
    VariantRecord,
)
from pipeline.results.verdict import judge

BUDGET = (BudgetLine("accuracy_drop_pp", 1.0), BudgetLine("size_kib", 200.0), BudgetLine("p50_ms", 2.0))


def measurement(name: str, score: float, p50_ns: int) -> Measurement:
    blocks = tuple(
        TimingBlock(i, 1_910_000 + i, 402_000 + i, 900, 4000, p50_ns + i, 61_341_696, f"{name}-{i}.npy")
        for i in range(5)
    )
    return Measurement(name, "litert", "2.3.0", 1, blocks, Score("top1", score, 10_000, f"{name}-score.npy"))


def artifact(name: str, size_bytes: int, gzip_bytes: int, *steps: str) -> Artifact:
    return Artifact(
        name.encode().hex().ljust(64, "0"), f"/cache/{name}.tflite", size_bytes, gzip_bytes, (), (), steps, {}
    )


def variant(name: str, size: tuple[int, int], score: float, p50_ns: int, *steps: str, why: tuple[str, ...] = ()):
    p50 = Estimate(float(p50_ns), p50_ns * 0.985, p50_ns * 1.02)
    p90 = Estimate(p50_ns * 1.08, p50_ns * 1.05, p50_ns * 1.13)
    change_pp = None if name == "float32" else 100 * (score - 0.9291)
    numbers = Numbers(Estimate(score, score - 0.0052, score + 0.0049), change_pp, p50, p90, 1.91e6, 4.02e5, 61_341_696)
    return VariantRecord(
        name, steps, artifact(name, *size, *steps), measurement(name, score, p50_ns), None, numbers, why
    )


def rich(plain: VariantRecord) -> VariantRecord:
    """The variant with all that can be known of one."""
    memory = MemorySplit(40 << 20, 2 << 20, 1 << 20)
    minutes = (
        SustainedMinute(1, 900_000, 61_800, 51.0, 1800.0),
        SustainedMinute(2, 880_000, 63_000, 70.0, 1800.0),
        SustainedMinute(3, 800_000, 67_980, 81.5, 1500.0, ("throttled",)),
    )
    return dataclasses.replace(
        plain,
        measurement=dataclasses.replace(
            plain.measurement,
            blocks=tuple(dataclasses.replace(block, memory=memory) for block in plain.measurement.blocks),
            parity=(OutputParity("out", 31.4, 0.08, 10_000), OutputParity("same", None, 0.0, 10_000)),
            sustained=Sustained(minutes),
            power=Power(32_000, 2.0, (Reading("VDD_IN", 4.2),), 4.2, 0.26),
            retaken=2,
        ),
        comparison=Comparison("float32", Estimate(0.4167, 0.40, 0.43), 0.02, "faster", 40, 21, 0.021, "worse"),
        notes=("2 disturbed blocks taken again",),
        operators=(
            OperatorTime(1, "Convolution", "xnnpack", 40e3, 0.8),
            OperatorTime(2, "Softmax", "builtin", 1e4, 0.2),
        ),
    )


def variants() -> tuple[VariantRecord, ...]:
    failure = Failure("dynamic_range", "load", "litert cannot load it: unresolved custom op | HYBRID_CONV", "trace")
    failed = VariantRecord("dynamic_range", ("dynamic_range",), artifact("d", 96_512, 80_220), None, failure, None, ())
    return (
        variant("float32", (362_104, 333_876), 0.9291, 148_300),
        variant("float16", (186_440, 170_310), 0.9290, 146_900, "float16"),
        failed,
        rich(variant("int8", (106_928, 84_417), 0.9272, 61_800, "int8")),
        variant(
            "pruned_int8",
            (106_928, 41_225),
            0.9243,
            62_100,
            "magnitude_pruning",
            "int8",
            why=("throttled in 3 of 5 blocks",),
        ),
    )


def run_record(known: tuple[VariantRecord, ...], budget: tuple[BudgetLine, ...] = BUDGET) -> RunRecord:
    return RunRecord(
        run_id="20261123T201512-fashion_mnist",
        experiment="fashion_mnist",
        experiment_file="configs/experiments/fashion_mnist.yaml",
        started_utc="2026-11-23T20:15:12Z",
        finished_utc="2026-11-23T20:19:48Z",
        device_name="local",
        transport="local",
        device=DeviceInfo("Intel(R) Xeon(R) Platinum", "x86_64", 2, 8 << 30, "Debian 12", "6.1.0", "3.11.2"),
        metric="top1",
        samples=10_000,
        data_source="/usr/share/datasets/fashion-mnist",
        baseline="float32",
        variants=known,
        verdict=judge(known, budget, "float32"),
        host={"edgepress": "0.1.0", "tensorflow": "2.21.0"},
        before=BoardState(
            "t0",
            (Reading("cpu", 51.0), Reading("gpu", 48.0)),
            (Reading("0", 1800.0),),
            1800.0,
            ("ondemand",),
            load_1min=0.1,
        ),
        after=BoardState(
            "t1", (Reading("cpu", 81.5),), throttled_now=("throttled",), throttled_since_boot=("under-voltage",)
        ),
    )


@pytest.fixture
def record() -> RunRecord:
    return run_record(variants())


@pytest.fixture
def hostile_record(record: RunRecord) -> RunRecord:
    """A record whose names try to leave their place in the page."""
    evil = "<script>window.hacked=1</script>"
    renamed = dataclasses.replace(record.variants[0], name=evil, invalid_reasons=("</script><b>|x|",))
    return dataclasses.replace(run_record((renamed, *record.variants[1:])), experiment=evil)


def fleet_run(runs: dict[str, RunRecord], failed: dict[str, DeviceFailure]) -> FleetRun:
    """A run on several devices: these records, and these failures."""
    outcomes = [
        DeviceOutcome(
            name, None, f"devices/{name}", "a" * 64, False, 5, sum(v.valid for v in r.variants), r.verdict.chosen
        )
        for name, r in runs.items()
    ] + [DeviceOutcome(name, failure, asked="a" * 64) for name, failure in failed.items()]
    record = FleetRecord(
        run_id="20261123T201512Z-fashion_mnist-a6a9",
        experiment="fashion_mnist",
        experiment_file="e.yaml",
        started_utc="2026-11-23T20:15:12Z",
        finished_utc="2026-11-23T20:19:48Z",
        metric="top1",
        baseline="float32",
        devices=tuple(outcomes),
        verdict=judge_fleet(runs, list(failed), 0.02),
        host={"edgepress": "0.1.0"},
    )
    return FleetRun(record, runs)


def on_device(record: RunRecord, name: str, times: float) -> RunRecord:
    """The record as of a device that takes so many times as long."""
    slower = [
        dataclasses.replace(
            v,
            numbers=dataclasses.replace(v.numbers, p50_ns=Estimate(v.numbers.p50_ns.value * times)),
        )
        if v.numbers
        else v
        for v in record.variants
    ]
    return dataclasses.replace(run_record(tuple(slower)), device_name=name)


@pytest.fixture
def fleet(record: RunRecord) -> FleetRun:
    """Two boards that were measured, and one that was down, with a reason that tries to leave its place in the page."""
    down = DeviceFailure("unreachable", "pi-c (pi@pi-c:22): <script>connection refused</script> | check")
    return fleet_run({"pi-a": on_device(record, "pi-a", 1.0), "pi-b": on_device(record, "pi-b", 3.0)}, {"pi-c": down})


@pytest.fixture
def fleet_without_results() -> FleetRun:
    """Two boards, neither of which had room."""
    return fleet_run({}, {name: DeviceFailure("full", f"{name} has no room") for name in ("pi-a", "pi-b")})


@pytest.fixture
def nothing_measured(record: RunRecord) -> RunRecord:
    """A record of a run in which every variant failed."""
    return run_record((record.variants[2],))
