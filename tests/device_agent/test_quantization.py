import numpy as np
import pytest

from device_agent.protocol import DataSpec
from device_agent.runtimes import Tensor
from device_agent.samples import DataMismatch, Samples, dequantize, open_samples, quantize

DIGEST = "a" * 64


def test_halves_are_rounded_away_from_zero_and_the_range_is_clipped():
    tensor = Tensor("input", (1, 6), "int8", 0.5, 3)
    real = np.array([0.25, -0.25, 0.75, 0.2, 1e9, -1e9], np.float32)
    assert quantize(real, tensor).tolist() == [4, 2, 5, 3, 127, -128]


def test_an_integer_tensor_without_a_scale_is_given_the_numbers_themselves():
    assert quantize(np.array([3.6, 300], np.float32), Tensor("input", (1, 2), "uint8")).tolist() == [4, 255]


def test_integer_outputs_become_the_real_numbers_they_stand_for():
    real = dequantize(np.array([-128, 0, 127], np.int8), Tensor("output", (1, 3), "int8", 0.5, -128))
    assert (real.dtype, real.tolist()) == (np.float32, [0, 64, 127.5])


def test_float_outputs_stay_as_they_are():
    output = np.array([1.5])
    assert dequantize(output, Tensor("output", (1,), "float32")) is output


def test_samples_are_scaled_and_given_the_models_shape():
    spec = DataSpec(DIGEST, DIGEST, 1, scale=1 / 255, offset=-0.5)
    images = np.full((1, 2, 2), 255, np.uint8)
    sample = Samples(images, np.zeros(1), spec, Tensor("input", (1, 2, 2, 1), "float32")).input(0)
    assert (sample.dtype, sample.shape) == (np.float32, (1, 2, 2, 1))
    assert sample == pytest.approx(0.5)


def test_large_integers_reach_an_integer_input_unrounded():
    tokens = np.array([[2**24 + 1]], np.int64)
    samples = Samples(tokens, np.zeros(1), DataSpec(DIGEST, DIGEST, 1), Tensor("input", (1, 1), "int32"))
    assert samples.input(0).tolist() == [[2**24 + 1]]


@pytest.mark.parametrize("shape", [(1, 2, 3), (1, 2, 3, 1)])
def test_a_batch_of_one_and_one_channel_are_added(tmp_path, shape):
    paths = save(tmp_path, np.zeros((4, 2, 3), np.float32))
    samples = open_samples(*paths, DataSpec(DIGEST, DIGEST, 4), (Tensor("input", shape, "float32"),))
    assert samples.input(3).shape == shape
    assert isinstance(samples.inputs, np.memmap)


@pytest.mark.parametrize("shape", [(2, 3), (1, 6), (1, 3, 2), (2, 2, 3), (1, 1, 2, 3)])
def test_another_shape_is_refused_with_both(tmp_path, shape):
    paths = save(tmp_path, np.zeros((4, 2, 3), np.float32))
    with pytest.raises(DataMismatch, match=r"model input has the shape \[.*\], a sample \[2, 3\]; expected the input"):
        open_samples(*paths, DataSpec(DIGEST, DIGEST, 4), (Tensor("input", shape, "float32"),))


def test_a_model_with_several_inputs_is_refused(tmp_path):
    tensor = Tensor("input", (1, 2), "float32")
    with pytest.raises(DataMismatch, match="model has 2 inputs; expected one"):
        open_samples("inputs", "labels", DataSpec(DIGEST, DIGEST, 1), (tensor, tensor))


def test_fewer_samples_than_there_are_can_be_taken(tmp_path):
    paths = save(tmp_path, np.zeros((4, 2), np.float32))
    samples = open_samples(*paths, DataSpec(DIGEST, DIGEST, 3), (Tensor("input", (1, 2), "float32"),))
    assert len(samples.labels) == 3


def save(folder, inputs):
    np.save(folder / "inputs.npy", inputs)
    np.save(folder / "labels.npy", np.zeros(len(inputs), np.int64))
    return str(folder / "inputs.npy"), str(folder / "labels.npy")
