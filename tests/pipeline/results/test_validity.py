from dataclasses import replace
from pathlib import Path

import pytest

from device_agent.protocol import (
    BlockConditions,
    BoardState,
    Delegation,
    DeviceInfo,
    JobResult,
    OutputParity,
    Profile,
    Sustained,
)
from pipeline.config import load_experiment
from pipeline.results.record import Estimate
from pipeline.results.validity import invalid_reasons, notes


@pytest.fixture
def experiment(tmp_path):
    path = tmp_path / "e.yaml"
    path.write_text("name: e\nmodel: m.keras\nmetric: top1\ndata: {file: d.npz}\nvariants: {float32: []}\n")
    return load_experiment(Path(path))


@pytest.fixture
def measured(variant):
    return variant().measurement


def reasons(measured, experiment, baseline=None, **states) -> tuple[str, ...]:
    device = DeviceInfo(None, "aarch64", 4, None, None, "6.1", "3.11.2")
    result = JobResult("a" * 16, "done", "t0", "t1", device, (measured,), (), (), **states)
    return invalid_reasons(measured, experiment, result, baseline or measured.model)


def test_five_calm_blocks_are_valid_and_need_no_note(experiment, measured, variant):
    assert reasons(measured, experiment) == ()
    assert notes(measured, variant().numbers, experiment) == ()


def test_too_few_processes_are_invalid(experiment, measured):
    few = replace(measured, blocks=measured.blocks[:3])
    assert reasons(few, experiment) == ("timed in 3 of 5 processes",)


def test_blocks_that_stayed_disturbed_are_invalid_with_what_disturbed_them(experiment, measured):
    hot = BlockConditions(disturbances=("temperature after the block is 84.0 C; at most 80.0 C is allowed",))
    blocks = (replace(measured.blocks[0], conditions=hot, attempt=3), *measured.blocks[1:])
    [reason] = reasons(replace(measured, blocks=blocks), experiment)
    assert reason.startswith("1 of 5 blocks were disturbed, the last tried 4 times: temperature after the block is 84")


@pytest.mark.parametrize(("snr_db", "valid"), [(None, True), (35.0, True), (5.0, True), (4.9, False), (0.0, False)])
def test_outputs_far_from_the_baselines_are_invalid(experiment, measured, snr_db, valid):
    found = reasons(replace(measured, parity=(OutputParity("out", snr_db, 1.0, 100),)), experiment)
    assert valid == (found == ())
    if not valid:
        assert f"its signal-to-noise ratio is {snr_db:.1f} dB over 100 samples, and min_snr_db is 5" in found[0]


def test_a_precision_that_was_not_reached_is_said(experiment, measured, variant):
    asked = replace(experiment, measure=replace(experiment.measure, precision=0.02, time_limit_s=60.0))
    wide = replace(variant().numbers, p50_ns=Estimate(100.0, 95.0, 105.0))
    [note] = notes(measured, wide, asked)
    assert note.startswith("p50 is known to ±5.0% after 5 processes; ±2.0% was asked for")
    assert note.endswith("time limit of 60 s, or as many blocks as one job may have, came first")
    assert notes(measured, replace(wide, p50_ns=Estimate(100.0, 99.0, 101.0)), asked) == ()


def test_a_delegate_that_did_not_take_all_is_said(experiment, measured, variant):
    partly = replace(measured, delegation=Delegation("gpu", 10, 8, ("GATHER",), "o.json"))
    assert notes(partly, variant().numbers, experiment) == (
        "gpu took over 8 of 10 operators; left to the runtime: GATHER",
    )
    wholly = replace(measured, delegation=Delegation("gpu", 10, 10, (), "o.json"))
    assert notes(wholly, variant().numbers, experiment) == ()


def test_retakes_few_processes_and_a_missing_profile_are_said(experiment, measured, variant):
    poor = replace(measured, blocks=measured.blocks[:2], retaken=1, profile=Profile(problem="no profiler here"))
    assert notes(poor, variant().numbers, experiment) == (
        "timed in 2 fresh processes only; it takes 5 for an interval",
        "1 disturbed block taken again",
        "no profiler here",
    )


def test_outputs_that_nobody_compared_are_invalid(experiment, measured):
    [reason] = reasons(measured, experiment, baseline="float32")
    assert reason == "its outputs were not compared: the baseline float32 has none; choose another baseline"


def test_a_governor_that_changed_during_the_job_makes_it_invalid(experiment, measured):
    states = {
        "before": BoardState("t0", governors=("performance",)),
        "after": BoardState("t1", governors=("powersave",)),
    }
    [reason] = reasons(measured, experiment, **states)
    assert reason == "the governor changed during the job from performance to powersave"


def test_a_sustained_run_that_broke_off_makes_it_invalid(experiment, measured):
    broken = replace(measured, sustained=Sustained(problem="crash: sustained ended with SIGSEGV"))
    assert reasons(broken, experiment) == ("the sustained run broke off: crash: sustained ended with SIGSEGV",)
