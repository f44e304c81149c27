"""Which variant may ship on several devices."""

import dataclasses

from device_agent.protocol import DeviceInfo, Failure, Measurement, Score, TimingBlock
from pipeline.results.fleet_verdict import judge_fleet
from pipeline.results.record import Artifact, BudgetLine, Estimate, Numbers, RunRecord, VariantRecord
from pipeline.results.verdict import judge

DEVICE = DeviceInfo(model=None, machine="aarch64", cores=4, ram_bytes=None, os=None, kernel="6", python="3")
LARGE, SMALL = 200_000, 100_000


def variant(name: str, p50_ns: int, size_bytes: int = LARGE, spread_ns: int = 10) -> VariantRecord:
    blocks = tuple(TimingBlock(i, 1, 1, 1, 64, p50_ns + i * spread_ns, 1, f"{name}-{i}.npy") for i in range(5))
    measured = Measurement(name, "litert", "2", 1, blocks, Score("top1", 0.9, 100, "s.npy"))
    numbers = Numbers(
        Estimate(0.9), None, Estimate(float(p50_ns), p50_ns * 0.99, p50_ns * 1.01), None, 1.0, 1.0, 1 << 20
    )
    artifact = Artifact(name, f"{name}.tflite", size_bytes, size_bytes, (), (), (), {})
    return VariantRecord(name, (), artifact, measured, None, numbers, ())


def failed(name: str) -> VariantRecord:
    return dataclasses.replace(
        variant(name, 1), measurement=None, numbers=None, failure=Failure(name, "crash", "it died of signal 11")
    )


def run(*variants: VariantRecord, p50_ms: float | None = None) -> RunRecord:
    budget = () if p50_ms is None else (BudgetLine("p50_ms", p50_ms),)
    verdict = judge(variants, budget, variants[0].name)
    return RunRecord(
        "id", "e", "e.yaml", "", "", "pi", "ssh", DEVICE, "top1", 100, "", variants[0].name, variants, verdict, {}
    )  # fmt: skip


def test_what_is_the_fastest_everywhere_may_ship_on_all():
    runs = {
        "pi-a": run(variant("a", 1_000_000), variant("b", 500_000)),
        "pi-b": run(variant("a", 3_000_000), variant("b", 900_000)),
    }
    verdict = judge_fleet(runs, [], 0.02)
    assert verdict.chosen == "b"
    assert verdict.reason == (
        "b may ship on all 2 devices: of 2 variants that meet the budget on each of them none is shown to be faster "
        "than it anywhere"
    )
    assert verdict.ships_on == {"a": ("pi-a", "pi-b"), "b": ("pi-a", "pi-b")}


def test_where_each_is_ahead_somewhere_the_one_that_loses_the_least_is_chosen():
    runs = {
        "pi-a": run(variant("a", 1_000_000), variant("b", 1_300_000)),
        "pi-b": run(variant("a", 5_000_000), variant("b", 1_000_000)),
    }
    verdict = judge_fleet(runs, [], 0.02)
    assert verdict.chosen == "b"
    assert verdict.reason.endswith("it loses the least, 1.30 times the time of the fastest on pi-a")


def test_of_those_equally_fast_everywhere_the_smallest_is_chosen():
    runs = {
        name: run(variant("a", 1_000_000, spread_ns=90_000), variant("b", 1_010_000, SMALL, spread_ns=80_000))
        for name in ("pi-a", "pi-b")
    }
    assert judge_fleet(runs, [], 0.02).chosen == "b"


def test_on_an_emulated_board_nobody_is_faster():
    emulated = run(variant("a", 1_000_000), variant("b", 500_000, LARGE + 1))
    emulated = dataclasses.replace(emulated, device=dataclasses.replace(DEVICE, emulated=True))
    verdict = judge_fleet(
        {"pi-a": run(variant("a", 1_000), variant("b", 1_000, LARGE + 1)), "qemu": emulated}, [], 0.02
    )
    assert verdict.chosen == "a"
    assert verdict.reason.endswith("; no time was judged on qemu, emulated")


def test_what_misses_the_budget_on_one_device_may_not_ship_on_all():
    runs = {
        "pi-a": run(variant("a", 1_000_000), variant("b", 500_000), p50_ms=2.0),
        "pi-b": run(variant("a", 1_900_000), variant("b", 2_500_000), p50_ms=2.0),
    }
    verdict = judge_fleet(runs, [], 0.02)
    assert verdict.chosen == "a"
    assert verdict.reason == "a may ship on all 2 devices: the only one that meets the budget on each of them"
    assert verdict.ships_on["b"] == ("pi-a",)


def test_where_no_variant_may_ship_everywhere_the_closest_is_named_with_what_it_misses():
    runs = {
        "pi-a": run(variant("a", 1_000_000), variant("b", 3_000_000), p50_ms=2.0),
        "pi-b": run(variant("a", 2_500_000), variant("b", 1_000_000), p50_ms=2.0),
        "pi-c": run(variant("a", 1_000_000), failed("b"), p50_ms=2.0),
    }
    verdict = judge_fleet(runs, ["pi-d"], 0.02)
    assert verdict.chosen is None
    assert verdict.reason == (
        "no variant may ship on the 3 of 4 devices that were measured: a may on 2 of them, but not on pi-b: "
        "p50 2.5 ms > 2 ms; nothing is known of pi-d"
    )


def test_of_devices_that_were_not_measured_nothing_is_said():
    verdict = judge_fleet({"pi-a": run(variant("a", 1_000_000))}, ["pi-b", "pi-c"], 0.02)
    assert verdict.chosen == "a"
    assert verdict.reason.startswith("a may ship on the 1 of 3 devices that were measured: ")
    assert verdict.reason.endswith("; nothing is known of pi-b, pi-c")


def test_when_no_device_was_measured_nothing_may_ship():
    verdict = judge_fleet({}, ["pi-a", "pi-b"], 0.02)
    assert (verdict.chosen, verdict.reason) == (None, "no variant may ship: none of 2 devices was measured")


def test_with_one_process_each_the_faster_one_is_chosen():
    def once(name: str, p50_ns: int) -> VariantRecord:
        whole = variant(name, p50_ns)
        return dataclasses.replace(
            whole, measurement=dataclasses.replace(whole.measurement, blocks=whole.measurement.blocks[:1])
        )

    runs = {"pi-a": run(once("a", 1_000_000), once("b", 900_000)), "pi-b": run(once("a", 950_000), once("b", 900_000))}
    assert judge_fleet(runs, [], 0.02).chosen == "b"
