"""Models in each format, from ``edgepress init`` to the report, through the real command line."""

import pytest

pytestmark = pytest.mark.tensorflow


@pytest.mark.parametrize("model", ["keras2.h5", "saved_model", "ready.tflite"])
def test_every_format_goes_from_init_to_report(bench, model):
    data = bench.models / "data.npz"
    made = bench.edgepress("init", "--model", bench.models / model, "--data", data, "--metric", "top1", "-o", "my.yaml")
    assert made.returncode == 0, made.stderr
    text = (bench.folder / "my.yaml").read_text()
    (bench.folder / "my.yaml").write_text(
        text.replace("warmup_s: 0.5", "warmup_s: 0").replace("timing_s: 1.0", "timing_s: 0")
    )
    done = bench.edgepress("run", "my.yaml", "--quiet")
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(variant["valid"] for variant in bench.record()["variants"])
