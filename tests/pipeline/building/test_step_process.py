import os
import signal
import threading

import numpy as np
import pytest
from processes import processes_holding, steps_in, wait_for

from pipeline.building.running_steps import RunningSteps, Stopped
from pipeline.building.step_process import StepProcess
from pipeline.errors import ModelError, StepError

pytestmark = pytest.mark.tensorflow


def inspect(model, timeout_s: float = 120, shape: tuple[int, ...] = (3,)) -> StepProcess:
    # By default samples that the model does not take: it is looked at, and not run.
    samples = model.parent / "samples.npy"
    np.save(samples, np.zeros((4, *shape)))
    files = {"inputs_file": str(samples), "labels_file": str(samples)}
    data = {**files, "scale": 1.0, "offset": 0.0, "seed": 0, "runtime": "", "dtype": "", "teacher": None}
    score = {**files, "metric": "top1", "reference_file": None}
    request = {"kind": "inspect", "source": str(model), "format": "keras3", "data": data, "score": score}
    return StepProcess("inspect", request, timeout_s)


def silent(fraction: float, text: str) -> None:
    pass


def test_a_step_leaves_its_files_and_its_log(bench, tmp_path, steps):
    inspect(bench.models / "keras3.keras").run(tmp_path, silent, steps)
    assert {"request.json", "log.txt", "model.json"} == {path.name for path in tmp_path.iterdir()}


def test_a_step_leaves_no_temporary_files(bench, tmp_path, monkeypatch):
    (tmp_path / "temporary").mkdir()
    (tmp_path / "step").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    with RunningSteps() as running:
        inspect(bench.models / "keras3.keras", shape=(12, 12, 1)).run(tmp_path / "step", silent, running)
    assert (tmp_path / "step" / "reference.npy").exists()
    left = {path.name for folder in ("temporary", "step") for path in (tmp_path / folder).iterdir()}
    assert not {name for name in left if "tmp" in name or "autograph" in name}


def test_a_step_that_takes_too_long_is_ended_and_told(bench, tmp_path, steps):
    step = inspect(bench.models / "keras3.keras", timeout_s=0.01)
    with pytest.raises(StepError, match=r"inspect: not finished after 0\.01 s; raise limits\.step_timeout_s"):
        step.run(tmp_path, silent, steps)
    wait_for(lambda: not steps_in(tmp_path))


def test_an_error_of_ours_keeps_its_kind(tmp_path, steps):
    (tmp_path / "damaged.keras").write_bytes(b"PK\x03\x04")
    with pytest.raises(ModelError, match=r"inspect: cannot be loaded: File not found"):
        inspect(tmp_path / "damaged.keras").run(tmp_path, silent, steps)


def test_a_bug_in_a_step_is_told_with_the_end_of_its_log(tmp_path, steps):
    with pytest.raises(StepError, match=r"ended with exit code 1; the end of its log:(.|\n)*KeyError: 'no such kind'"):
        StepProcess("odd", {"kind": "no such kind"}, 60).run(tmp_path, silent, steps)


def killed_by(pids) -> threading.Thread:
    """Kill what ``pids()`` finds, as soon as it finds any."""

    def kill() -> None:
        wait_for(pids)
        for pid in pids():
            os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    return killer


def test_a_step_that_is_killed_names_the_signal_and_the_next_one_runs(bench, tmp_path, steps):
    killer = killed_by(lambda: steps_in(tmp_path / "first"))
    (tmp_path / "first").mkdir()
    with pytest.raises(StepError, match=r"ended by SIGKILL \(out of memory\?\)"):
        inspect(bench.models / "keras3.keras").run(tmp_path / "first", silent, steps)
    killer.join()
    (tmp_path / "second").mkdir()
    inspect(bench.models / "keras3.keras").run(tmp_path / "second", silent, steps)


def test_when_the_server_is_killed_its_step_names_the_signal_and_the_next_one_has_another(bench, tmp_path):
    running = RunningSteps()
    (tmp_path / "first").mkdir()
    killer = killed_by(lambda: processes_holding(tmp_path / "first"))
    with pytest.raises(StepError, match=r"ended by SIGKILL \(out of memory\?\)"):
        inspect(bench.models / "keras3.keras").run(tmp_path / "first", silent, running)
    killer.join()
    (tmp_path / "second").mkdir()
    inspect(bench.models / "keras3.keras").run(tmp_path / "second", silent, running)
    running.stop()
    assert not processes_holding(tmp_path)


def test_a_stopped_run_starts_no_further_step(tmp_path):
    running = RunningSteps()
    running.stop()
    with pytest.raises(Stopped):
        inspect(tmp_path / "any.keras").run(tmp_path, silent, running)
