from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_agent.protocol import Measurement, Score, TimingBlock
from pipeline.results.record import Estimate
from pipeline.results.statistics import early_stopping_percentile, numbers, over_processes, proportion

TIMES = st.lists(st.integers(1_000, 10_000_000), min_size=2, max_size=9)


def measured(processes, scores=(1, 0, 1, 1), value=0.75):
    """A measurement and its raw samples: one list of nanoseconds a process."""
    blocks = tuple(
        TimingBlock(i, 1_000 * (i + 1), 500 * (i + 1), 9, len(times), 0, 2_000 - i, f"b{i}.npy")
        for i, times in enumerate(processes)
    )
    samples = {f"b{i}.npy": np.asarray(times, dtype=np.int64) for i, times in enumerate(processes)}
    samples["s.npy"] = np.asarray(scores, dtype=np.float32)
    return Measurement("m", "litert", "2.3.0", 1, blocks, Score("top1", value, len(scores), "s.npy")), samples


def test_p50_is_the_median_over_processes_of_the_median_within_each():
    got = numbers(*measured([[1, 2, 3], [10, 20, 900], [5, 6, 7]]), None)
    assert got.p50_ns.value == 6


def test_interval_of_three_processes_spans_their_medians():
    # The chance that a resample of three has the smallest value as its median is 7/27, far above 2.5 %.
    assert over_processes([10.0, 30.0, 20.0]) == Estimate(20.0, 10.0, 30.0)


def test_one_process_has_no_interval():
    assert over_processes([7.0]) == Estimate(7.0, None, None)


def test_identical_processes_have_an_interval_of_no_width():
    assert over_processes([7.0] * 5) == Estimate(7.0, 7.0, 7.0)


def test_p90_is_none_when_one_process_has_63_samples():
    assert numbers(*measured([range(64), range(63)]), None).p90_ns is None


def test_p90_is_the_median_over_processes_of_the_early_stopping_estimate():
    got = numbers(*measured([range(64), range(100, 164), range(200, 264)]), None)
    assert got.p90_ns == Estimate(163.0, 63.0, 263.0)
    assert got.p99_ns is None


@pytest.mark.parametrize(("count", "discarded"), [(2048, 172), (2116, 178), (2145, 181), (7469, 685)])
def test_early_stopping_discards_as_many_values_as_loadgen_says_in_published_results(count, discarded):
    # mlperf_log_summary.txt of SingleStream runs in MLCommons' inference results: "Would discard N highest latency".
    assert early_stopping_percentile(np.arange(count), 0.9) == count - 1 - discarded


@pytest.mark.parametrize(("share", "least"), [(0.5, 11), (0.9, 64), (0.95, 130), (0.99, 662), (0.999, 6636)])
def test_early_stopping_needs_loadgens_minimum_of_values(share, least):
    assert early_stopping_percentile(np.arange(least - 1), share) is None
    assert early_stopping_percentile(np.arange(least), share) == least - 1


def test_score_of_right_and_wrong_has_wilsons_interval():
    # z = 1.959964: centre (8 + z²/2) / (10 + z²), half-width z / (10 + z²) · sqrt(8 · 2 / 10 + z²/4)
    got = proportion(8, 10)
    assert got.value == 0.8
    assert got.low == pytest.approx(0.490162, abs=1e-6)
    assert got.high == pytest.approx(0.943318, abs=1e-6)


def test_score_that_is_not_a_proportion_has_no_interval():
    got = numbers(*measured([[1]], scores=(0.25, 1.0), value=0.61), None)
    assert got.score == Estimate(0.61, None, None)


def test_change_is_counted_from_the_baseline_in_percentage_points():
    assert numbers(*measured([[1]]), 0.80).score_change_pp == pytest.approx(-5.0)
    assert numbers(*measured([[1]]), None).score_change_pp is None


def test_load_and_first_inference_are_medians_and_memory_is_the_largest():
    got = numbers(*measured([[1], [1], [1]]), None)
    assert (got.load_ns, got.first_invoke_ns, got.peak_rss_bytes) == (2_000, 1_000, 2_000)


def test_a_missing_file_of_samples_is_an_error():
    measurement, samples = measured([[1]])
    del samples["b0.npy"]
    with pytest.raises(KeyError, match=r"b0\.npy"):
        numbers(measurement, samples, None)


@given(TIMES)
@settings(max_examples=25, deadline=None)
def test_interval_contains_its_point(medians):
    got = over_processes(medians)
    assert got.low is not None and got.high is not None
    assert min(medians) <= got.low <= got.value <= got.high <= max(medians)


@given(TIMES, st.randoms())
@settings(max_examples=25, deadline=None)
def test_order_of_the_processes_does_not_matter(medians, random):
    shuffled = random.sample(medians, len(medians))
    assert over_processes(shuffled) == over_processes(medians)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
@settings(max_examples=50, deadline=None)
def test_wilson_interval_contains_the_proportion_and_stays_within_0_and_1(counts):
    got = proportion(*counts)
    assert got.low is not None and got.high is not None
    assert 0 <= got.low <= got.value + 1e-12 and got.value - 1e-12 <= got.high <= 1
