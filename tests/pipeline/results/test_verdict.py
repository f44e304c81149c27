from __future__ import annotations

import pytest

from device_agent.protocol import Failure
from pipeline.errors import UsageError
from pipeline.results.record import BudgetLine
from pipeline.results.verdict import judge

P50 = (BudgetLine("p50_ms", 2.0),)


def test_fastest_within_the_budget_is_chosen(variant):
    verdict = judge([variant("a", 1.5), variant("b", 1.0), variant("c", 3.2)], P50, "a")
    assert verdict.chosen == "b"
    assert verdict.misses == {"a": (), "b": (), "c": ("p50 3.2 ms > 2 ms",)}
    assert verdict.reason == (
        "b may ship: the fastest of 2 variants that meet the budget, with p50 1.00 ms, 100.0 KiB and "
        "top-1 92.00 % (−0.50 pp)"
    )


def test_smallest_wins_among_variants_of_which_none_is_shown_to_be_slower(variant):
    known = [variant("a", 1.0, size_kib=200), variant("b", 1.15, 0.2, size_kib=90), variant("c", 1.5, size_kib=10)]
    verdict = judge(known, (), "a")
    assert verdict.chosen == "b"
    assert "2 equally fast at the front: none is shown to be slower" in verdict.reason


def test_a_difference_below_the_smallest_effect_does_not_count(variant):
    known = [variant("a", 1.0, size_kib=9), variant("b", 1.03, size_kib=8)]
    assert judge(known, (), "a", smallest_effect=0.02).chosen == "a"
    assert judge(known, (), "a", smallest_effect=0.05).chosen == "b"


def test_name_decides_between_variants_alike_in_speed_and_size(variant):
    assert judge([variant("b"), variant("a")], (), "b").chosen == "a"


def test_variants_are_compared_with_the_fastest_and_not_along_a_chain(variant):
    known = [variant("a", 1.0, 0, 30), variant("b", 1.15, 0.2, 20), variant("c", 1.3, 0.05, 10)]
    assert judge(known, (), "a").chosen == "b"


def test_value_at_the_limit_meets_it(variant):
    assert judge([variant(p50_ms=2.0)], P50, "x").chosen == "int8"


def test_rounding_of_floats_does_not_miss_a_limit(variant):
    drop = variant(change_pp=100 * (0.9161 - 0.9261))
    assert judge([drop], [BudgetLine("accuracy_drop_pp", 1.0)], "x").misses["int8"] == ()


@pytest.mark.parametrize(
    ("name", "limit", "sentence"),
    [
        ("accuracy_drop_pp", 0.25, "accuracy drop 0.5 pp > 0.25 pp"),
        ("size_kib", 64, "size 100 KiB > 64 KiB"),
        ("p50_ms", 0.9999, "p50 1 ms > 0.9999 ms"),
        ("peak_memory_mib", 32.5, "peak memory 50 MiB > 32.5 MiB"),
    ],
)
def test_each_limit_says_by_what_it_is_missed(variant, name, limit, sentence):
    assert judge([variant()], [BudgetLine(name, limit)], "x").misses["int8"] == (sentence,)


def test_a_close_miss_is_shown_with_the_decimals_that_tell_it(variant):
    verdict = judge([variant(p50_ms=2.0004)], P50, "x")
    assert verdict.misses["int8"] == ("p50 2.0004 ms > 2 ms",)


def test_baseline_has_a_drop_of_zero(variant):
    assert judge([variant("base", change_pp=None)], [BudgetLine("accuracy_drop_pp", 0.0)], "base").chosen == "base"


def test_drop_is_unknown_without_a_baseline_score(variant):
    verdict = judge([variant(change_pp=None)], [BudgetLine("accuracy_drop_pp", 1.0)], "base")
    assert verdict.misses["int8"] == ("accuracy drop is unknown: the baseline base has no score",)


def test_invalid_variant_misses_with_its_reasons_however_fast(variant):
    verdict = judge([variant("a", 0.1, invalid=("throttled", "loaded")), variant("b", 1.0)], P50, "b")
    assert verdict.chosen == "b"
    assert verdict.misses["a"] == ("throttled", "loaded")


def test_failed_variant_misses_with_its_failure_on_one_line(variant):
    failed = variant("a", failure=Failure("a", "load", "no op\nhere"))
    assert judge([failed], (), "a").misses["a"] == ("load: no op here",)


def test_without_a_budget_every_valid_variant_meets_it(variant):
    verdict = judge([variant("a", 1.0), variant("b", 9.0), variant("c", invalid=("hot",))], (), "a")
    assert verdict.misses == {"a": (), "b": (), "c": ("hot",)}
    assert verdict.reason.startswith("a may ship: the fastest of 2 variants with VALID numbers (no budget is set)")


def test_only_variant_that_meets_the_budget_is_named_as_such(variant):
    reason = judge([variant("a", 1.0), variant("b", 9.0)], P50, "a").reason
    assert reason.startswith("a may ship: the only one of 2 variants that meets the budget, with p50 1.00 ms")


def test_closest_variant_is_named_when_none_meets_the_budget(variant):
    verdict = judge([variant("a", 9.0), variant("b", 3.0)], P50, "a")
    assert verdict.chosen is None
    assert verdict.reason == "no variant meets the budget: b comes closest and misses p50 3 ms > 2 ms"


def test_no_valid_variant_is_said_with_the_first_reason(variant):
    reason = judge([variant("a", invalid=("throttled",)), variant("b", invalid=("hot",))], P50, "a").reason
    assert reason == "no variant may ship: none of 2 is VALID (a: throttled)"


def test_a_run_without_variants_has_nothing_to_ship():
    assert judge([], (), "a").reason == "no variant may ship: the run has none"


def test_unknown_budget_names_those_that_exist(variant):
    with pytest.raises(UsageError, match='unknown budget "speed"; known: accuracy_drop_pp, size_kib, p50_ms'):
        judge([variant()], [BudgetLine("speed", 1.0)], "x")
