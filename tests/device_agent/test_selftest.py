"""The golden model, in the runtimes of this machine."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from runtime_pythons import PYTHONS

import device_agent
from device_agent.selftest import GOLDEN
from pipeline.devices.provisioning.wheels import all_locks

# As "make setup" installs them.
VERSIONS = {"litert": "litert 2.3.0", "tflite_runtime": "tflite_runtime 2.14.0"}
AGENT = Path(device_agent.__file__).parent


def run(runtime: str, agent: Path = AGENT) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(agent.parent)}
    command = [PYTHONS[runtime], "-m", "device_agent.selftest", runtime]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd="/")


@pytest.fixture
def copy(tmp_path):
    """A copy of the agent, whose numbers may be changed."""
    folder = tmp_path / "device_agent"
    shutil.copytree(AGENT, folder, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.mark.parametrize("runtime", PYTHONS)
def test_a_runtime_gives_its_numbers(runtime):
    done = run(runtime)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["version"]


@pytest.mark.parametrize("runtime", PYTHONS)
def test_one_step_off_in_one_output_is_found(runtime, copy):
    path = copy / "golden" / "golden.json"
    golden = json.loads(path.read_text())
    version = VERSIONS[runtime]
    golden["outputs"][version][3][7] += 1
    path.write_text(json.dumps(golden))
    done = run(runtime, copy)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert f"{version} gives [" in last
    assert "] for input 3 of the golden model, not [" in last


def test_a_version_of_which_no_numbers_are_known_is_told(copy):
    path = copy / "golden" / "golden.json"
    golden = json.loads(path.read_text())
    del golden["outputs"]["litert 2.3.0"]
    path.write_text(json.dumps(golden))
    assert "no numbers are known of litert 2.3.0; known: litert 2.1.0, " in run("litert", copy).stderr.splitlines()[-1]


def test_there_are_numbers_of_every_runtime_that_boards_get():
    golden = json.loads((GOLDEN / "golden.json").read_text())
    assert set(golden["outputs"]) == {f"{lock.runtime} {lock.wheels[0].version}" for lock in all_locks()}


def test_a_module_that_cannot_be_imported_is_found(copy):
    (copy / "sensors" / "rails.py").write_text("import no_such_module\n")
    assert "No module named 'no_such_module'" in run("litert", copy).stderr.splitlines()[-1]


def test_the_model_is_small_and_its_inputs_and_outputs_are_many_enough():
    assert (GOLDEN / "golden.tflite").stat().st_size < 20_000
    golden = json.loads((GOLDEN / "golden.json").read_text())
    assert len(golden["inputs"]) == 8
    for outputs in golden["outputs"].values():
        # Outputs that are all alike, or at the ends of their range, would find nothing.
        values = [value for output in outputs for value in output]
        assert len(set(values)) > 20
        assert sum(value in (-128, 127) for value in values) < len(values) / 10
