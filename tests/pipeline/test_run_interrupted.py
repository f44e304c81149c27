"""Runs that are interrupted, and started again."""

import signal
import subprocess

import pytest
from processes import heed_ctrl_c, processes_holding, wait_for

pytestmark = pytest.mark.tensorflow

FLOAT32 = "  float32: []\n"
BOTH = f"{FLOAT32}  float16:\n    - quantization: {{mode: float16}}\n"


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_an_interrupted_run_leaves_no_process_and_goes_on_from_the_cache(fresh_bench, sent, code):
    path = fresh_bench.experiment(variants=FLOAT32 + "  pruned:\n    - magnitude_pruning: {epochs: 300}\n")
    builds = fresh_bench.home / ".cache" / "edgepress" / "builds"
    running = subprocess.Popen(
        fresh_bench.command("run", path),
        preexec_fn=heed_ctrl_c,
        cwd=fresh_bench.folder,
        env=fresh_bench.environment,
        stderr=subprocess.PIPE,
        text=True,
    )

    wait_for(lambda: any(builds.glob("[0-9a-f]*/model.tflite")))
    running.send_signal(sent)
    _, said = running.communicate(timeout=30)
    assert running.returncode == code
    assert "Traceback" not in said
    assert ("run the same command again" in said) == (sent == signal.SIGINT)
    assert "SIGKILL" not in said
    wait_for(lambda: not processes_holding(builds), 10)
    finished = {entry.name for entry in builds.glob("[0-9a-f]*")}
    again = fresh_bench.edgepress("run", fresh_bench.experiment(variants=BOTH))
    assert again.returncode == 0, again.stdout + again.stderr
    assert "from the cache" in again.stdout
    assert finished <= {entry.name for entry in builds.iterdir()}
    assert not list(builds.glob(".part-*"))
