import numpy as np
import pytest

from pipeline.cache import Cache
from pipeline.errors import DataError
from pipeline.samples import npz_samples
from pipeline.training.training_data import TrainingData


def saved(tmp_path, **arrays):
    path = tmp_path / "d.npz"
    np.savez(path, **arrays)
    return path


def test_training_samples_are_kept_apart_from_those_that_are_scored(tmp_path):
    path = saved(
        tmp_path, x_test=np.ones((8, 3)), y_test=np.zeros(8, int), x_train=np.zeros((4, 3)), y_train=np.ones(4, int)
    )
    samples = npz_samples(path, Cache(tmp_path), 0.5, 1.0)
    assert (samples.count, samples.sample_shape) == (8, (3,))
    assert np.load(samples.x_train).shape == (4, 3)
    assert samples.y_train is not None


def test_without_training_samples_a_quarter_is_set_aside_and_not_scored(tmp_path):
    path = saved(tmp_path, x_test=np.arange(80.0).reshape(80, 1), y_test=np.zeros(80, int))
    samples = npz_samples(path, Cache(tmp_path), None, None)
    assert samples.count == 60
    assert samples.y_train is None
    assert not set(np.load(samples.x_train).ravel()) & set(np.load(samples.x_test).ravel())
    assert "20 were set aside" in samples.source


def test_the_same_content_is_the_same_file(tmp_path):
    path = saved(tmp_path, x_test=np.ones((8, 3)), y_test=np.zeros(8, int))
    assert npz_samples(path, Cache(tmp_path), None, None) == npz_samples(path, Cache(tmp_path), None, None)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x_test": np.ones((3, 2))}, r"has no y_test; it holds x_test"),
        ({"a": np.ones(3)}, r"has no x_test and no y_test; it holds a"),
        ({"x_test": np.ones((3, 2)), "y_test": np.ones(4, int)}, r"x_test has shape \(3, 2\) and y_test \(4,\)"),
        ({"x_test": np.array([["a"], ["b"]]), "y_test": np.ones(2, int)}, r"x_test has dtype <U1; expected numbers"),
        ({"x_test": np.array([[np.nan], [0]]), "y_test": np.ones(2, int)}, r"x_test has values that are not finite"),
        ({"x_test": np.ones((2, 2)), "y_test": np.ones(2, int), "x_train": np.ones((2, 2))}, "only one of x_train"),
        (
            {"x_test": np.ones((2, 2)), "y_test": np.ones(2, int), "x_train": np.ones((2, 3)), "y_train": np.ones(2)},
            r"samples of x_train have shape \(3,\) and those of x_test \(2,\)",
        ),
    ],
)
def test_arrays_that_do_not_belong_together_are_told(tmp_path, arrays, message):
    with pytest.raises(DataError, match=message):
        npz_samples(saved(tmp_path, **arrays), Cache(tmp_path), None, None)


def test_a_missing_or_damaged_file_is_told(tmp_path):
    with pytest.raises(DataError, match=r"no.npz: no such file"):
        npz_samples(tmp_path / "no.npz", Cache(tmp_path), None, None)
    damaged = tmp_path / "d.npz"
    damaged.write_bytes(b"PK\x03\x04rubbish")
    with pytest.raises(DataError, match=r"cannot be read as \.npz"):
        npz_samples(damaged, Cache(tmp_path), None, None)
    np.save(tmp_path / "bare.npy", np.ones(3))
    with pytest.raises(DataError, match="one bare array"):
        npz_samples(tmp_path / "bare.npy", Cache(tmp_path), None, None)


def test_pickled_arrays_are_refused(tmp_path):
    path = saved(tmp_path, x_test=np.array([{}, {}], dtype=object), y_test=np.ones(2, int))
    with pytest.raises(DataError, match=r"cannot be read as \.npz"):
        npz_samples(path, Cache(tmp_path), None, None)


def test_calibration_indices_are_fixed_by_the_seed_and_distinct(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.arange(1000, dtype=np.uint8).reshape(1000, 1))
    data = TrainingData(path, None, 2.0, 1.0, seed=3, runtime="litert")
    indices = data.fixed_indices(100)
    assert indices == data.fixed_indices(100) == sorted(set(indices))
    assert len(indices) == 100
    assert data.fixed_indices(5000) == list(range(1000))
    np.testing.assert_array_equal(data.inputs([3, 5]), np.array([[7.0], [11.0]], np.float32))


def test_labels_in_a_column_are_taken_as_a_list(tmp_path):
    path = saved(tmp_path, x_test=np.ones((8, 3)), y_test=np.arange(8).reshape(8, 1))
    assert np.load(npz_samples(path, Cache(tmp_path), None, None).y_test).shape == (6,)
