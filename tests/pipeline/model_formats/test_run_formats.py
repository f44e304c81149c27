"""Models in each format, from ``edgepress init`` to the report, through the real command line."""

import pytest

pytestmark = pytest.mark.tensorflow

# A variant that is trained and one that is converted are enough; how the others are made is the same for all formats.
KEPT = {"keras2.h5": ("float32", "pruned_int8"), "saved_model": ("float32", "int8")}


@pytest.mark.parametrize("model", ["keras2.h5", "saved_model", "ready.tflite", "ready_int8.tflite"])
def test_every_format_goes_from_init_to_report(bench, model):
    done = bench.edgepress("run", bench.initialized(model, "data.npz", *KEPT.get(model, ())), "--quiet")
    assert done.returncode == 0, done.stdout + done.stderr
    variants = bench.record()["variants"]
    assert all(variant["valid"] for variant in variants)
    assert min(variant["numbers"]["score"]["value"] for variant in variants) > 0.7
