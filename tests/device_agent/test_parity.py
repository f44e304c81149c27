import numpy as np
import pytest

from device_agent import parity
from device_agent.parity import OutputComparison, OutputWriter, ParityMismatch, signal_to_noise_db


def write(folder, rows) -> None:
    with OutputWriter(folder, len(rows)) as writer:
        for outputs in rows:
            writer.add([np.array(output, np.float32) for output in outputs])


def compare(folder, rows, names=("a", "b")):
    comparison = OutputComparison(folder)
    for outputs in rows:
        comparison.add([np.array(output, np.float32) for output in outputs])
    return comparison.result(names)


def test_every_output_is_compared_over_all_samples(tmp_path):
    write(tmp_path, [([3.0, 4.0], [1.0]), ([0.0, 5.0], [2.0])])
    first, second = compare(tmp_path, [([3.0, 4.5], [1.0]), ([0.0, 5.0], [2.0])])
    assert (first.output, first.largest_difference, first.samples) == ("a", 0.5, 2)
    assert first.snr_db == pytest.approx(10 * np.log10(50 / 0.25))
    assert (second.output, second.snr_db, second.largest_difference) == ("b", None, 0.0)


def test_a_model_that_answers_zeros_has_a_ratio_of_0_db(tmp_path):
    write(tmp_path, [([0.1, 0.9],), ([0.7, 0.3],)])
    assert compare(tmp_path, [([0.0, 0.0],)] * 2, ["a"])[0].snr_db == pytest.approx(0.0)


def test_a_baseline_of_zeros_alone_is_no_signal():
    assert signal_to_noise_db(0.0, 1.0) == -400.0
    assert signal_to_noise_db(0.0, 0.0) is None


def test_without_a_baseline_there_is_no_parity(tmp_path):
    assert compare(tmp_path, [([1.0],)]) == ()


@pytest.mark.parametrize(
    ("outputs", "message"),
    [(([1.0, 2.0, 3.0],), "shape"), (([1.0, 2.0], [1.0]), "model has 2 outputs, the baseline 1")],
)
def test_outputs_of_another_form_are_refused(tmp_path, outputs, message):
    write(tmp_path, [([1.0, 2.0],)])
    with pytest.raises(ParityMismatch, match=message):
        compare(tmp_path, [outputs])


def test_large_outputs_are_kept_of_as_many_samples_as_fit(tmp_path, monkeypatch):
    monkeypatch.setattr(parity, "MOST_BYTES", 32)
    write(tmp_path, [([1.0, 2.0, 3.0, 4.0],)] * 5)
    assert np.load(tmp_path / "outputs-0.npy").shape == (2, 4)
    assert compare(tmp_path, [([1.0, 2.0, 3.0, 4.0],)] * 5)[0].samples == 2


def test_a_score_pass_that_breaks_off_leaves_no_outputs(tmp_path):
    with pytest.raises(KeyError), OutputWriter(tmp_path, 2) as writer:
        writer.add([np.ones(2, np.float32)])
        raise KeyError
    assert list(tmp_path.iterdir()) == []
