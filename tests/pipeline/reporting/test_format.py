from __future__ import annotations

import pytest

from pipeline.reporting import format
from pipeline.results.record import Estimate


@pytest.mark.parametrize(
    ("ns", "text"),
    [(0, "0.00 ns"), (812, "812 ns"), (9_876, "9.88 µs"), (52_149, "52.1 µs"), (999_600, "1.00 ms"), (3.2e9, "3.20 s")],
)
def test_duration_has_three_digits_and_the_unit_that_fits(ns, text):
    assert format.duration(ns) == text


def test_interval_has_the_unit_and_decimals_of_its_point():
    assert format.duration_interval(Estimate(52_149.0, 9_000.0, 120_000.0)) == "9.0–120.0"
    assert format.fraction_interval(Estimate(0.926, 0.9208, 0.9311)) == "92.08–93.11"


def test_no_interval_is_an_empty_text():
    assert format.duration_interval(Estimate(1.0)) == ""


@pytest.mark.parametrize(("pp", "text"), [(-0.314, "−0.31 pp"), (0.12, "+0.12 pp"), (-0.001, "±0.00 pp")])
def test_change_has_a_sign_and_never_a_minus_before_zero(pp, text):
    assert format.change(pp) == text


def test_sizes_are_kib_and_mib_and_exact_bytes():
    assert format.size(100_776) == "98.4 KiB"
    assert format.memory(61_341_696) == "58.5 MiB"
    assert format.exact_bytes(100_776) == "100,776 bytes"


@pytest.mark.parametrize(
    ("duration_s", "text"), [(0.04, "0.0 s"), (12.34, "12.3 s"), (99.96, "1 min 40 s"), (185, "3 min 05 s")]
)
def test_wall_time_is_seconds_then_minutes(duration_s, text):
    assert format.seconds(duration_s) == text


def test_nouns_are_counted():
    assert [format.count(1, "process"), format.count(5, "process"), format.count(2, "core")] == [
        "1 process",
        "5 processes",
        "2 cores",
    ]


def test_metrics_are_written_as_their_field_writes_them():
    assert [format.metric(name) for name in ("top1", "map", "f1_score")] == ["top-1", "mAP", "f1 score"]
