"""What a report says of each step, from its evidence."""

from dataclasses import replace

from pipeline.reporting.sections import details
from pipeline.results.record import StepEvidence, TensorEvidence

EVIDENCE = StepEvidence(
    step="magnitude_pruning",
    parameters=100,
    macs=2000,
    tensors=(
        TensorEvidence("conv/kernel", (3, 3, 1, 8), "float32", 0.8, 15),
        TensorEvidence("head/kernel", (7, 4), "float32", 0, 28),
    ),
    size_bytes=1000,
    gzip_bytes=500,
    score=0.9,
    snr_db=20.0,
    samples=2000,
)


def test_zeros_and_distinct_values_of_each_tensor_are_in_the_report(record):
    first = record.variants[0]
    artifact = replace(first.artifact, evidence=(EVIDENCE,))
    sections = dict(details(replace(record, variants=(replace(first, artifact=artifact),))))
    assert sections["Weights after each step"] == (
        (
            f"{first.name}: magnitude_pruning",
            "conv/kernel [3, 3, 1, 8] float32: 80.0% zeros, 15 distinct; "
            "head/kernel [7, 4] float32: 0.0% zeros, 28 distinct",
        ),
    )
    [(_, said)] = sections["What each step did"]
    assert "at most 28 distinct values in a tensor" in said
