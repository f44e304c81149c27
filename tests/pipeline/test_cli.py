import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

EDGEPRESS = str(Path(sys.executable).with_name("edgepress"))


def edgepress(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([EDGEPRESS, *arguments], cwd=folder, capture_output=True, text=True, timeout=60)


def test_a_bad_experiment_is_exit_code_2_with_every_mistake_on_a_line(tmp_path):
    (tmp_path / "e.yaml").write_text("name: x\ntask: mnist\nvariants: {a: []}\nthreads: none\n")
    done = edgepress(tmp_path, "run", "e.yaml")
    assert done.returncode == 2
    assert done.stderr == (
        'edgepress: e.yaml:2: task is "mnist"; expected one of fashion_mnist, '
        "fashion_mnist_mobilenet, fashion_mnist_resnet8\n"
        'e.yaml:4: threads is "none"; expected an integer from 1 to 256, or a list of such\n'
    )


def test_an_unknown_command_and_option_are_exit_code_2(tmp_path):
    assert edgepress(tmp_path, "runn").returncode == 2
    assert edgepress(tmp_path, "run", "--fast", "x.yaml").returncode == 2


def test_version_and_schema_are_printed(tmp_path):
    assert "0.1.0" in edgepress(tmp_path, "--version").stdout
    assert '"variants"' in edgepress(tmp_path, "schema").stdout


def test_an_unknown_task_lists_those_that_exist(tmp_path):
    done = edgepress(tmp_path, "train", "mnist")
    assert (done.returncode, done.stderr) == (
        2,
        'edgepress: unknown task "mnist"; known: fashion_mnist, fashion_mnist_mobilenet, fashion_mnist_resnet8\n',
    )


def test_init_writes_what_run_accepts_and_tells_what_it_saw(tmp_path):
    from pipeline.config import load_experiment

    (tmp_path / "m.tflite").write_bytes(b"\x1c\0\0\0TFL3")
    np.savez(tmp_path / "d.npz", x_test=np.zeros((9, 4), np.uint8), y_test=np.zeros(9, int))
    (tmp_path / "sub").mkdir()
    made = edgepress(
        tmp_path, "init", "--model", "m.tflite", "--data", "d.npz", "--metric", "top1", "-o", "sub/my exp.yaml"
    )
    assert made.returncode == 0, made.stderr
    text = (tmp_path / "sub" / "my exp.yaml").read_text()
    assert "9 test samples of shape (4,), uint8" in text
    experiment = load_experiment(tmp_path / "sub" / "my exp.yaml")
    assert experiment.model.resolve() == tmp_path / "m.tflite"
    assert experiment.data.scale == pytest.approx(1 / 255)
    assert [variant.name for variant in experiment.variants] == ["as_is"]


@pytest.mark.parametrize(
    ("model", "data", "metric", "message"),
    [
        ("no.keras", "d.npz", "top1", "no.keras: no such file"),
        ("m.tflite", "no.npz", "top1", "no.npz: no such file"),
        ("m.tflite", "d.npz", "top3", 'unknown metric "top3"; known: top1, top5'),
        ("text.txt", "d.npz", "top1", "content begins with b'hello'"),
    ],
)
def test_init_refuses_what_cannot_work(tmp_path, model, data, metric, message):
    (tmp_path / "m.tflite").write_bytes(b"\x1c\0\0\0TFL3")
    (tmp_path / "text.txt").write_text("hello")
    np.savez(tmp_path / "d.npz", x_test=np.zeros((9, 4)), y_test=np.zeros(9, int))
    done = edgepress(tmp_path, "init", "--model", model, "--data", data, "--metric", metric, "-o", "e.yaml")
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "e.yaml").exists()


def test_a_bug_shows_its_traceback(tmp_path):
    script = "import pipeline.cli as c\n@c.cli.command()\ndef broken():\n    raise RuntimeError('a bug')\nc.main()"
    done = subprocess.run([sys.executable, "-c", script, "broken"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_help_answers_within_100_ms_of_importing_click():
    # A coverage run would follow into the processes whose time is at stake.
    unwatched = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}

    def took_ms(command: list[str]) -> float:
        begin = time.perf_counter()
        subprocess.run(command, env=unwatched, stdout=subprocess.DEVNULL, check=True)
        return (time.perf_counter() - begin) * 1000

    commands = {"click": [sys.executable, "-c", "import click"], "help": [EDGEPRESS, "--help"]}
    # By turns, so that what else this machine does slows neither alone.
    rounds = [{name: took_ms(command) for name, command in commands.items()} for _ in range(10)]
    took = {name: [one[name] for one in rounds] for name in commands}
    # The quickest of each: others on this machine can only make either of them slower.
    assert min(took["help"]) - min(took["click"]) <= 100
