"""What a job can ask for beyond times and scores, by the real agent in real processes."""

import dataclasses
import itertools
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from device_agent import sustained
from device_agent.energy import measure_power
from device_agent.protocol import ConditionSpec, LimitSpec, MeasureSpec, Reading
from device_agent.sensors import read_moment
from device_agent.sustained import minutes

QUICK = MeasureSpec(processes=2, warmup_s=0.0, timing_s=0.0, min_invokes=8, max_invokes=8)


def test_precision_adds_processes_until_the_time_limit(agent, host):
    asked = dataclasses.replace(QUICK, precision=1e-6, time_limit_s=3.0)
    [measurement] = host.measure(agent.spec(agent.null_model(work=50), measure=asked)).measurements
    assert len(measurement.blocks) > 2
    assert sum(block.elapsed_s for block in measurement.blocks[:-1]) < 3.0
    assert [block.process for block in measurement.blocks] == list(range(len(measurement.blocks)))


def test_outputs_are_compared_with_the_baselines(agent, host):
    labels = np.zeros(4, np.int64)
    truth = agent.null_model("truth", output=[0.5, 0.25, 0.125, 0.125])
    models = (agent.null_model("zeros", output=[0.0, 0.0, 0.0, 0.0]), truth)
    spec = dataclasses.replace(agent.spec(*models, data=agent.data(labels=labels)), baseline="truth")
    found = {measurement.model: measurement for measurement in host.measure(spec).measurements}
    [parity] = found["zeros"].parity
    assert (parity.snr_db, parity.largest_difference, parity.samples) == (pytest.approx(0.0), 0.5, 4)
    assert found["truth"].parity == ()


def test_a_failed_baseline_leaves_the_others_without_parity(agent, host):
    models = (agent.null_model("truth", fault="raise"), agent.null_model("other"))
    result = host.measure(dataclasses.replace(agent.spec(*models), baseline="truth"))
    assert [failure.model for failure in result.failures] == ["truth"]
    assert [(measurement.model, measurement.parity) for measurement in result.measurements] == [("other", ())]


def test_once_a_block_was_given_up_its_models_others_are_not_taken_again(agent, tmp_path):
    (tmp_path / "root/sys/class/thermal/thermal_zone0").mkdir(parents=True)
    (tmp_path / "root/sys/class/thermal/thermal_zone0/temp").write_text("99000")
    agent.kill()
    agent.options = (f"--root={tmp_path / 'root'}",)
    host = agent.start().host()
    hot = ConditionSpec(max_temperature_c=80, retries=2, cooldown_s=0.01)
    [measurement] = host.measure(agent.spec(agent.null_model(), measure=QUICK, conditions=hot)).measurements
    assert [block.attempt for block in measurement.blocks] == [2, 0]
    assert all(block.conditions.disturbances for block in measurement.blocks)


@pytest.fixture
def busy_machine():
    """Others keep every core busy."""
    spinning = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    yield
    for process in spinning:
        process.kill()
        process.wait()


def test_a_disturbed_block_is_taken_again_as_often_as_allowed_and_says_why(agent, host, busy_machine):
    strict = ConditionSpec(max_temperature_c=None, max_other_cpus=0.3, retries=2, cooldown_s=0.05)
    asked = MeasureSpec(processes=1, warmup_s=0, timing_s=0.3, min_invokes=8, max_invokes=1000)
    job_id = host.submit(agent.spec(agent.null_model(invoke_us=2000), measure=asked, conditions=strict))
    stages = [event["stage"] for event in host.events(job_id) if isinstance(event, dict)]
    [measurement] = host.finish(job_id).measurements
    [block] = measurement.blocks
    assert block.attempt == measurement.retaken == stages.count("cooldown") == 2
    [why] = block.conditions.disturbances
    assert "others kept" in why
    assert "at most 0.30 is allowed" in why


def test_the_sustained_pass_has_a_line_for_each_minute(agent, host):
    asked = dataclasses.replace(QUICK, sustained_s=0.3)
    [measurement] = host.measure(agent.spec(agent.null_model(invoke_us=500), measure=asked)).measurements
    [minute] = measurement.sustained.minutes
    assert minute.minute == 1
    assert 0 < minute.invokes <= 600
    assert minute.p50_ns >= 500_000


class Clock:
    """A clock that only ``sleep`` moves on."""

    def __init__(self):
        self._now_s = 0

    def sleep(self, duration_s):
        self._now_s += duration_s

    def monotonic(self):
        return self._now_s

    def perf_counter_ns(self):
        return self._now_s * 10**9


def test_minutes_follow_each_other_until_the_time_is_up(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(sustained, "time", clock)
    found = list(minutes(lambda: clock.sleep(10), 100, lambda: read_moment(Path("/nonexistent")), minute_s=40))
    assert [(minute.minute, minute.invokes) for minute in found] == [(1, 4), (2, 4), (3, 2)]
    assert all(minute.p50_ns == 10 * 10**9 and minute.temperature_c is None for minute in found)


def test_energy_is_mean_power_by_rate_and_the_input_rail_is_not_counted_twice():
    first = (Reading("VDD_IN", 4.0), Reading("VDD_SOC", 1.0))
    second = (Reading("VDD_IN", 6.0),)  # a rail that does not answer every time
    readings = itertools.cycle([first, second])
    power = measure_power(lambda: time.sleep(0.001), 0.1, lambda: next(readings))
    rails = {rail.name: rail.value for rail in power.rails_w}
    assert (rails["VDD_SOC"], power.problem) == (1.0, "")
    assert power.mean_w == rails["VDD_IN"] == pytest.approx(5.0, abs=0.1)
    assert power.energy_per_invoke_mj == pytest.approx(power.mean_w * power.duration_s / power.invokes * 1000)
    assert power.duration_s > 1.0  # ten readings, one every tenth of a second


def test_rails_that_never_answer_are_a_problem_and_no_power_of_zero():
    power = measure_power(lambda: None, 0.01, lambda: ())
    assert (power.rails_w, power.problem) == ((), "no power rail answered")


def test_memory_is_split_into_runtime_load_and_first_inference(agent, host):
    [measurement] = host.measure(agent.spec(agent.null_model())).measurements
    for block in measurement.blocks:
        split = block.memory
        assert split.runtime_bytes > 10 << 20
        assert min(split.load_bytes, split.first_invoke_bytes) >= 0
        assert split.runtime_bytes + split.load_bytes + split.first_invoke_bytes <= block.peak_rss_bytes


def test_a_sustained_run_that_breaks_off_keeps_times_and_score(agent, host):
    asked = dataclasses.replace(QUICK, sustained_s=30)
    model = agent.null_model(fault="exit", fault_after=20)
    [measurement] = host.measure(agent.spec(model, measure=asked)).measurements
    assert (len(measurement.blocks), measurement.score.value) == (2, 1.0)
    assert measurement.sustained.problem == "crash: sustained ended with exit status 3 and no result"


def test_a_sustained_run_may_take_processor_time_beyond_the_limit(agent, host):
    asked = dataclasses.replace(QUICK, sustained_s=2.0)
    spec = agent.spec(agent.null_model(invoke_us=1000), measure=asked, limits=LimitSpec(wall_s=60, cpu_s=1))
    [measurement] = host.measure(spec).measurements
    assert measurement.sustained.problem == ""
    assert measurement.sustained.minutes[0].invokes > 100
