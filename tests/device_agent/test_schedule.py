import dataclasses

import numpy as np
import pytest
from scipy import stats

from device_agent.intervals import median_interval
from device_agent.protocol import DataSpec, JobSpec, MeasureSpec, ModelSpec, ProtocolError, TimingBlock
from device_agent.schedule import (
    check_size,
    half_width,
    later_blocks,
    needs_another_round,
    planned_blocks,
    timing_round,
)


def spec(models: int = 5, baseline: str = "", **measure) -> JobSpec:
    known = tuple(ModelSpec(f"m{number}", "a" * 64, "null") for number in range(models))
    data = DataSpec("a" * 64, "b" * 64, 1)
    return JobSpec("x", known, data, "top1", measure=MeasureSpec(**measure), baseline=baseline)


def timed(*medians_ns: int, elapsed_s: float = 1.0) -> list[TimingBlock]:
    return [
        TimingBlock(process, 1, 1, 1, 64, median_ns, 1, "b.npy", elapsed_s=elapsed_s)
        for process, median_ns in enumerate(medians_ns)
    ]


def test_a_round_has_every_model_once_in_an_order_of_its_own_and_the_same_seed_gives_the_same_order():
    rounds = [[block.model for block in timing_round(spec(), process)] for process in range(5)]
    assert all(sorted(models) == [0, 1, 2, 3, 4] for models in rounds)
    assert len({tuple(models) for models in rounds}) > 1
    assert [[block.model for block in timing_round(spec(), process)] for process in range(5)] == rounds
    assert [[block.model for block in timing_round(spec(seed=1), process)] for process in range(5)] != rounds


def test_the_baseline_is_scored_first():
    assert [block.model for block in later_blocks(spec(baseline="m3"), with_power=False)] == [3, 0, 1, 2, 4]


def test_the_passes_that_were_asked_for_follow_the_scores():
    asked = spec(models=1, profile=True, sustained_s=60)
    assert [block.stage for block in later_blocks(asked, with_power=True)] == [
        "scoring",
        "profile",
        "power",
        "sustained",
    ]
    assert planned_blocks(asked) == 5 + 3


def test_without_precision_there_are_as_many_rounds_as_processes():
    assert needs_another_round(spec(processes=3), 2, [timed(1, 100)], 0)
    assert not needs_another_round(spec(processes=3), 3, [timed(1, 100, 1000)], 0)


def test_rounds_go_on_until_every_model_was_as_precise_as_asked_twice_in_a_row():
    asked = spec(processes=5, precision=0.02)
    steady, unsteady = timed(100, 100, 101, 100, 99), timed(100, 130, 90, 110, 70)
    only_now = timed(100, 100, 100, 130, 100, 100)
    assert needs_another_round(asked, 5, [steady, unsteady], 0)
    assert needs_another_round(asked, 6, [steady, only_now], 0)
    assert not needs_another_round(asked, 5, [steady, steady], 0)


def test_rounds_end_at_the_time_limit_even_if_they_are_not_precise():
    asked = spec(processes=2, precision=0.001, time_limit_s=10)
    assert needs_another_round(asked, 2, [timed(100, 200)], 9.9)
    assert not needs_another_round(asked, 2, [timed(100, 200)], 10.0)


def test_rounds_end_when_the_result_would_not_fit_into_a_message_or_no_model_is_left():
    asked = spec(models=10, processes=2, precision=0.001)
    assert needs_another_round(asked, 69, [timed(100, 200)], 0)
    assert not needs_another_round(asked, 70, [timed(100, 200)], 0)
    assert not needs_another_round(asked, 2, [], 0)


def test_the_interval_is_that_of_scipys_bootstrap_and_does_not_depend_on_the_order():
    medians = [1000, 1010, 1040, 990, 1100, 1005, 1020]
    rng = np.random.default_rng(1)
    expected = stats.bootstrap((np.array(medians),), np.median, method="percentile", rng=rng).confidence_interval
    assert median_interval(medians) == pytest.approx((expected.low, expected.high), rel=0.01)
    assert median_interval(sorted(medians)) == median_interval(medians)


def test_one_process_has_no_interval():
    assert median_interval([100]) is None
    assert half_width([100]) == float("inf")


def test_a_job_too_large_for_one_result_is_refused_with_what_is_allowed():
    check_size(66, MeasureSpec(processes=2))
    for models, sustained_s in ((67, 0), (66, 3600)):
        with pytest.raises(ProtocolError, match=r"at most 800 = models \* \(processes \+ 10"):
            check_size(models, MeasureSpec(processes=2, sustained_s=sustained_s))


def test_a_baseline_that_is_none_of_the_models_is_refused():
    with pytest.raises(ProtocolError, match=r"baseline is 'm9'; expected one of \['m0'"):
        dataclasses.replace(spec(), baseline="m9")
