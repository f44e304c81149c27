"""Builders for records of one variant and of one run."""

from __future__ import annotations

import pytest

from device_agent.protocol import DeviceInfo, Failure, Measurement, Score, TimingBlock
from pipeline.results.record import Artifact, Estimate, Numbers, RunRecord, TensorInfo, VariantRecord
from pipeline.results.verdict import judge

MS = 1e6
MIB = 1024 * 1024


def make_variant(
    name="int8", p50_ms=1.0, spread_ms=0.0, size_kib=100.0, change_pp=-0.5, rss_mib=50, invalid=(), failure=None
) -> VariantRecord:
    tensors = (TensorInfo("input", (1, 28, 28, 1), "int8", 0.0039, -128),)
    artifact = Artifact("ab" * 32, f"/c/{name}", int(size_kib * 1024), 900, tensors, (), ("int8",), {"tensorflow": "2"})
    p50 = Estimate(p50_ms * MS, (p50_ms - spread_ms) * MS, (p50_ms + spread_ms) * MS)
    numbers = Numbers(Estimate(0.92, 0.91, 0.93), change_pp, p50, None, 5e6, 2e6, rss_mib * MIB)
    medians = [int((p50_ms + spread_ms * share) * MS) for share in (-1, 1, -0.75, 0.75, 0)]
    blocks = tuple(TimingBlock(i, 5, 2, 10, 64, median, rss_mib * MIB, f"{i}.npy") for i, median in enumerate(medians))
    measured = Measurement(name, "litert", "2.3.0", 1, blocks, Score("top1", 0.92, 100, "s.npy"))
    if failure is not None:
        return VariantRecord(name, ("int8",), artifact, None, failure, None, ())
    return VariantRecord(name, ("int8",), artifact, measured, None, numbers, invalid)


@pytest.fixture
def variant():
    """A builder of one variant's record."""
    return make_variant


@pytest.fixture
def record() -> RunRecord:
    variants = (
        make_variant("float32", 2.0, change_pp=None),
        make_variant("int8"),
        make_variant("broken", failure=Failure("broken", "load", "no such op", "trace\nback")),
    )
    device = DeviceInfo(None, "aarch64", 4, None, None, "6.1", "3.11.2")
    verdict = judge(variants, (), "float32")
    data = "/usr/share/datasets"
    return RunRecord(
        "r1",
        "e",
        "e.yaml",
        "t0",
        "t1",
        "pi4",
        "ssh",
        device,
        "top1",
        100,
        data,
        "float32",
        variants,
        verdict,
        {"os": "é"},
    )
