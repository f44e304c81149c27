"""The whole Fashion-MNIST run on the board, with both runtimes: right answers, and no times."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import on_board
import pytest
from board_experiments import write_fashion_mnist, write_subset
from emulated_pi import ROOT

pytestmark = [pytest.mark.board, pytest.mark.tensorflow, pytest.mark.timeout(3 * 3600)]

RUNTIMES = ("litert", "tflite_runtime")
A_TIME = re.compile(r"\d\s*(ns|µs|ms)\b")


@pytest.fixture(scope="module")
def runs(provisioned, tmp_path_factory):
    """A function that does the run with a runtime, once, and returns its record, its folder and what was printed."""
    folder = tmp_path_factory.mktemp("runs")
    data = write_subset(folder, scored=100, trained=6000)
    done = {}

    def run(runtime: str):
        if runtime not in done:
            path = write_fashion_mnist(folder, runtime, data)
            printed = provisioned.edgepress("run", str(path), "--output", str(folder / runtime))
            [kept] = (folder / runtime).glob("*-fashion_mnist_*")
            done[runtime] = json.loads((kept / "report.json").read_text()), kept, printed
        return done[runtime]

    return run


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_every_variant_of_fashion_mnist_is_valid_on_the_board(runs, provisioned, runtime):
    record, _, _ = runs(runtime)
    scores = {variant["name"]: variant["numbers"]["score"]["value"] for variant in record["variants"]}
    provisioned.log(f"{runtime}: {', '.join(f'{name} {score:.2%}' for name, score in scores.items())} of 100 images")
    assert [variant["name"] for variant in record["variants"] if not variant["valid"]] == []
    assert list(scores) == ["float32", "float16", "dynamic_range", "int8", "pruned_int8"]
    assert min(scores.values()) > 0.8
    assert record["device"]["emulated"] and record["device"]["machine"] == "aarch64"


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_report_of_the_board_has_no_time_and_says_why(runs, runtime):
    record, folder, printed = runs(runtime)
    assert "p50 emulated" in printed and "no time was judged" in " ".join(printed.split())
    for text in (printed, (folder / "report.md").read_text()):
        assert A_TIME.search(text) is None
    assert all(variant["numbers"]["p50_ns"] is None for variant in record["variants"])


@pytest.mark.parametrize(("runtime", "kernels"), [("litert", "default"), ("tflite_runtime", "reference")])
def test_int8_outputs_are_those_of_the_same_runtime_on_this_machine_bit_by_bit(
    runs, provisioned, tmp_path, runtime, kernels
):
    """tflite-runtime's own int8 kernels for arm64 round as its reference kernels do; those for x86-64 need not."""
    _, folder, _ = runs(runtime)
    with np.load(folder.parents[1] / "subset.npz") as data:
        np.save(tmp_path / "images.npy", data["x_test"])
    model, images = folder / "models" / "int8.tflite", tmp_path / "images.npy"

    def here(kernels: str) -> str:
        return subprocess.run(
            [str(Path(sys.prefix).parent / runtime / "bin" / "python"), "-", runtime, kernels, str(model), str(images)],
            input=on_board.OUTPUTS,
            env={"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()

    for path in (model, images):
        provisioned.put(f"/home/pi/{path.name}", path.read_bytes())
    release = f"{provisioned.root}/current"
    there = provisioned.ssh(
        *("env", f"PYTHONPATH={release}/agent", f"{release}/runtimes/{runtime}/bin/python", "-", runtime, "default"),
        *("/home/pi/int8.tflite", "/home/pi/images.npy"),
        given=on_board.OUTPUTS.encode(),
    ).strip()
    expected, usual = here(kernels), here("default")
    provisioned.log(
        f"{runtime}: int8 outputs of 100 images, SHA-256 {there[:16]} there; here {expected[:16]} with its {kernels} "
        f"kernels, {usual[:16]} with its default ones"
    )
    assert len(there) == 64
    assert there == expected
