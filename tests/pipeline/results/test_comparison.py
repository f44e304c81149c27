from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from device_agent.protocol import BlockConditions, Measurement, Score, TimingBlock
from pipeline.results.comparison import compare, mcnemar, speed_of, time_ratio
from pipeline.results.record import Estimate


def measured(name, medians_ns, first_process=0) -> Measurement:
    blocks = tuple(
        TimingBlock(process, 1, 1, 1, 64, median_ns, 1, "b.npy")
        for process, median_ns in enumerate(medians_ns, start=first_process)
    )
    return Measurement(name, "litert", "2.3.0", 1, blocks, Score("top1", 0.5, 4, f"{name}.npy"))


def scores(ours, theirs):
    return {"a.npy": np.array(ours, np.float32), "b.npy": np.array(theirs, np.float32)}


def test_the_interval_of_few_pairs_is_that_of_a_paired_t_test_on_logarithms():
    ours, theirs = [105, 112, 95, 130, 108], [100, 110, 92, 118, 101]
    ratio = time_ratio(measured("a", ours), measured("b", theirs))
    expected = stats.ttest_rel(np.log(ours), np.log(theirs)).confidence_interval(0.95)
    assert (ratio.low, ratio.high) == pytest.approx((np.exp(expected.low), np.exp(expected.high)))
    assert ratio.value == pytest.approx(1.05)


@pytest.mark.parametrize("pairs", [6, 8, 20, 21, 40])
def test_the_interval_of_six_pairs_and_more_is_that_of_the_sign_test(pairs):
    ours = np.random.default_rng(pairs).permutation(np.arange(1001, 1001 + pairs))
    ratio = time_ratio(measured("a", ours), measured("b", [1000] * pairs))
    # The largest number of pairs of which so few lie on one side of the median by chance in less than 2.5 %.
    outside = int(stats.binom.ppf(0.025, pairs, 0.5)) - 1
    assert ratio.value == pytest.approx(1 + (pairs + 1) / 2000)
    assert (ratio.low, ratio.high) == pytest.approx((1.001 + outside / 1000, 1 + (pairs - outside) / 1000))


def test_pairs_of_which_one_was_slowed_down_do_not_hide_a_difference():
    theirs, ours = np.full(20, 1000), np.full(20, 1050)
    theirs[:4], ours[4:8] = 1600, 1700
    ratio = time_ratio(measured("a", ours), measured("b", theirs))
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((1.05, 1.05, 1.05))
    assert speed_of(ratio, 0.02) == "slower"


@pytest.mark.parametrize("pairs", [5, 20])
def test_intervals_hold_the_truth_as_often_as_they_say_when_processes_are_of_two_kinds(pairs):
    draw, hold, rounds = np.random.default_rng(1), 0, 400
    for _ in range(rounds):
        slowed = 1 + 0.65 * (draw.random((2, pairs)) < 0.45)
        ours, theirs = 1_000_000 * slowed * draw.lognormal(0, 0.02, (2, pairs))
        ratio = time_ratio(measured("a", (ours * 1.05).astype(int)), measured("b", theirs.astype(int)))
        hold += ratio.low <= 1.05 <= ratio.high
    assert hold / rounds >= 0.93


def test_drift_that_hits_both_of_a_pair_cancels():
    drift = np.array([1000, 1400, 800, 2000, 1100])
    ratio = time_ratio(measured("a", (drift * 1.1).astype(int)), measured("b", drift))
    assert (ratio.low, ratio.high) == pytest.approx((1.1, 1.1), rel=1e-3)


def test_only_blocks_of_the_same_process_are_pairs():
    ratio = time_ratio(measured("a", [100, 200, 300]), measured("b", [100, 150], first_process=1))
    assert ratio.value == pytest.approx(2.0)


def test_one_pair_has_no_interval_and_shows_nothing():
    ratio = time_ratio(measured("a", [300]), measured("b", [100]))
    assert ratio == Estimate(pytest.approx(3.0), None, None)
    assert speed_of(ratio, 0.02) == "not shown"


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.5, 0.9, "faster"),
        (0.5, 0.99, "not shown"),
        (0.99, 1.01, "as fast"),
        (1.01, 1.2, "not shown"),
        (1.03, 1.2, "slower"),
        (0.9, 1.1, "not shown"),
    ],
)
def test_faster_and_slower_are_said_only_beyond_the_smallest_effect(low, high, said):
    assert speed_of(Estimate(1.0, low, high), 0.02) == said


def test_accuracy_is_compared_sample_by_sample():
    ours, theirs = [1] * 20 + [0] * 15 + [1] * 2, [1] * 20 + [1] * 15 + [0] * 2
    found = compare(measured("a", [1, 1]), measured("b", [1, 1]), scores(ours, theirs))
    assert (found.baseline, found.lost, found.gained, found.accuracy) == ("b", 15, 2, "worse")
    assert found.p_value == pytest.approx(stats.binomtest(2, 17).pvalue)


def test_two_percentages_that_differ_by_few_samples_show_nothing():
    found = compare(measured("a", [1, 1]), measured("b", [1, 1]), scores([1, 0, 0, 0], [1, 1, 1, 1]))
    assert (found.lost, found.gained, found.accuracy) == (3, 0, "not shown")


def test_no_sample_on_which_they_differ_is_a_p_value_of_1():
    assert mcnemar(0, 0) == 1.0


def test_a_metric_that_is_not_right_or_wrong_has_no_mcnemar():
    found = compare(measured("a", [1, 1]), measured("b", [1, 1]), scores([0.5, 0.2], [0.1, 0.9]))
    assert (found.p_value, found.accuracy) == (None, "")


def test_a_disturbed_variant_is_neither_faster_nor_slower():
    slow, fast = measured("a", [300, 301, 300]), measured("b", [100, 100, 101])
    hot = BlockConditions(disturbances=("too hot",))
    disturbed = replace(fast, blocks=(replace(fast.blocks[0], conditions=hot), *fast.blocks[1:]))
    each = scores([1, 0], [1, 0])
    assert compare(slow, fast, each).speed == "slower"
    assert compare(slow, disturbed, each).speed == "not shown"
