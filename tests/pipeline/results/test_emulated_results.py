"""An emulated board: scores and sizes count, no time does."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from device_agent.protocol import Failure, Measurement, Score, TimingBlock
from pipeline.results.comparison import compare
from pipeline.results.record import BudgetLine, VariantRecord
from pipeline.results.statistics import numbers
from pipeline.results.store import read_record, write_record
from pipeline.results.verdict import judge

BUDGET = (BudgetLine("size_kib", 150.0), BudgetLine("p50_ms", 0.001))


def measured(name: str, median_ns: int) -> Measurement:
    blocks = tuple(TimingBlock(i, 5, 3, 1, 64, median_ns, 7_000 - i, f"{name}{i}.npy") for i in range(5))
    return Measurement(name, "litert", "2.3.0", 1, blocks, Score("top1", 0.75, 4, f"{name}.npy"))


def samples() -> dict[str, np.ndarray]:
    times = {f"{name}{i}.npy": np.arange(700) for name in "ab" for i in range(5)}
    return {**times, "a.npy": np.array([1, 1, 1, 0], np.float32), "b.npy": np.array([1, 1, 0, 0], np.float32)}


def emulated(plain: VariantRecord) -> VariantRecord:
    bare = dataclasses.replace(plain.numbers, p50_ns=None, p90_ns=None, load_ns=None, first_invoke_ns=None)
    return dataclasses.replace(plain, numbers=bare)


def test_an_emulated_board_has_a_score_and_a_memory_and_no_time():
    found = numbers(measured("a", 10), samples(), 0.5, emulated=True)
    assert (found.score.value, found.score_change_pp, found.peak_rss_bytes) == (0.75, pytest.approx(25.0), 7_000)
    times = (found.p50_ns, found.p90_ns, found.p99_ns, found.load_ns, found.first_invoke_ns)
    assert times == (None,) * 5
    assert found.emulated
    assert not numbers(measured("a", 10), samples(), 0.5).emulated


def test_no_variant_is_faster_on_an_emulated_board_and_accuracy_is_compared_all_the_same():
    ours, theirs = measured("a", 10), measured("b", 1_000)
    assert compare(ours, theirs, samples()).speed == "faster"
    compared = compare(ours, theirs, samples(), emulated=True)
    assert (compared.time_ratio, compared.speed) == (None, "emulated")
    assert (compared.gained, compared.lost, compared.accuracy) == (1, 0, "not shown")


def test_the_smallest_is_chosen_on_an_emulated_board_however_slow(variant):
    known = [emulated(variant("a", 0.001, size_kib=140)), emulated(variant("b", 9.0, size_kib=90))]
    verdict = judge(known, BUDGET, "a")
    assert (verdict.chosen, verdict.misses) == ("b", {"a": (), "b": ()})
    assert verdict.reason == (
        "b may ship: the smallest of 2 variants that meet the budget, with 90.0 KiB and top-1 92.00 % (−0.50 pp); "
        "the board is emulated, so no time was judged, and p50_ms of the budget neither"
    )


def test_without_a_limit_on_time_none_is_spoken_of(variant):
    known = [emulated(variant("a", size_kib=160)), emulated(variant("b", size_kib=90))]
    verdict = judge(known, BUDGET[:1], "a")
    assert verdict.reason == (
        "b may ship: the only one of 2 variants that meets the budget, with 90.0 KiB and top-1 92.00 % (−0.50 pp); "
        "the board is emulated, so no time was judged"
    )
    assert verdict.misses["a"] == ("size 160 KiB > 150 KiB",)


def test_the_other_limits_are_judged_on_an_emulated_board(variant):
    failed = variant("c", failure=Failure("c", "load", "no op"))
    known = [emulated(variant("a", size_kib=300)), emulated(variant("b", size_kib=200)), failed]
    verdict = judge(known, BUDGET, "a")
    assert verdict.chosen is None
    assert verdict.reason == "no variant meets the budget: b comes closest and misses size 200 KiB > 150 KiB"


def test_a_record_of_an_emulated_board_comes_back_as_it_was(record, tmp_path):
    kept = dataclasses.replace(
        record,
        device=dataclasses.replace(record.device, emulated=True),
        variants=(emulated(record.variants[0]), *record.variants[1:]),
    )
    assert read_record(write_record(kept, tmp_path)) == kept


def test_a_record_of_schema_3_is_of_a_board_that_nobody_called_emulated(record, tmp_path):
    path = write_record(record, tmp_path)
    content = json.loads(path.read_text()) | {"schema": 3}
    del content["device"]["emulated"]
    path.write_text(json.dumps(content))
    assert read_record(path) == record
