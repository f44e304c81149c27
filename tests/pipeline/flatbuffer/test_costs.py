"""What each kind of layer costs, against numbers counted by hand."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.flatbuffer import costs
from pipeline.flatbuffer.graph import read_model

pytestmark = pytest.mark.tensorflow

ROOT = Path(__file__).parents[3]

# MACs: output positions times weights, unless said otherwise. Parameters: weights and biases, where the converter keeps
# a bias of zeros.
COSTS = {
    "conv": (4 * 4 * (3 * 3 * 3 * 4), 108 + 4),
    "conv_int8": (4 * 4 * (3 * 3 * 3 * 4), 108 + 4),
    "dilated": (4 * 4 * (3 * 3 * 3 * 4), 108 + 4),
    "grouped": (6 * 6 * (3 * 3 * 2 * 6), 108 + 6),
    "depthwise": (6 * 6 * (3 * 3 * 3 * 2), 54 + 6),
    "separable": (6 * 6 * (3 * 3 * 3) + 6 * 6 * (3 * 5), 27 + 3 + 15 + 5),
    # Every weight meets every input position.
    "transposed": (4 * 4 * (3 * 3 * 3 * 5), 135),
    "conv1d": (8 * (3 * 3 * 4), 36 + 4),
    "conv3d": (3 * 3 * 3 * (2 * 2 * 2 * 2 * 3), 48),
    "dense": (7 * 5, 35 + 5),
    "dense_3d": (6 * 7 * 5, 35 + 5),
    # Four projections; then, for each of two heads, 6 × 6 scores of 4 products each, and as many for the sums.
    "attention": (4 * (6 * 8 * 8) + 2 * (2 * 6 * 6 * 4), 4 * 64 + 1),
    # Six steps of (3 inputs + 4 states) × 4 gates of 4.
    "lstm": (6 * (3 + 4) * 16, 112 + 16 + 2 * 4),
    "lstm_fused": (6 * (3 + 4) * 16, 112 + 2 * 4),
    # The first step's state is zero, and the converter has done its products.
    "lstm_unrolled": (6 * (3 + 4) * 16 - 4 * 16, 112 + 16),
    "gru": (6 * (3 + 4) * 12, None),
    "gru_unrolled": (6 * (3 + 4) * 12 - 4 * 12, None),
}


@pytest.fixture(scope="module")
def layers(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("layers")
    script = ROOT / "tests" / "cost_models.py"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    made = subprocess.run([sys.executable, str(script), str(folder)], capture_output=True, text=True, env=environment)
    assert made.returncode == 0, made.stderr
    return folder


@pytest.mark.parametrize("name", COSTS)
def test_a_layer_costs_what_is_counted_by_hand(layers, name):
    model = read_model((layers / f"{name}.tflite").read_bytes())
    macs, parameters = COSTS[name]
    assert costs.macs(model) == macs
    assert parameters is None or costs.parameters(model) == parameters


def test_a_fused_layer_is_one_operator_and_the_others_a_loop(layers):
    names = {
        name: {operator.name for operator in read_model((layers / f"{name}.tflite").read_bytes()).main.operators}
        for name in ("lstm", "lstm_fused", "gru")
    }
    assert "UNIDIRECTIONAL_SEQUENCE_LSTM" in names["lstm_fused"]
    assert "WHILE" in names["lstm"] & names["gru"]
