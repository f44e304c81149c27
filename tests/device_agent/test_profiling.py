"""The profile pass: LiteRT's own profiler on real tiny models."""

import hashlib
import io
import json

import numpy as np
import pytest
from agents import CALM
from runtime_pythons import ask_child
from tiny_tflite import HEAVY_SHAPE, SHAPE, make_once

from device_agent import profiling
from device_agent.blocks import Block, Request
from device_agent.protocol import DataSpec, JobSpec, MeasureSpec, ModelSpec, Profile, to_json


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return make_once(tmp_path_factory.getbasetemp())


@pytest.fixture
def request_for(tmp_path):
    """Return a function that lays out what a child needs and returns its request."""
    (tmp_path / "blobs").mkdir()

    def store(content):
        sha256 = hashlib.sha256(content).hexdigest()
        (tmp_path / "blobs" / sha256).write_bytes(content)
        return sha256

    def store_array(array):
        content = io.BytesIO()
        np.save(content, array)
        return store(content.getvalue())

    def make(content, runtime="litert", shape=SHAPE, **settings):
        inputs = np.random.default_rng(0).random((3, *shape[1:]), dtype=np.float32)
        data = DataSpec(store_array(inputs), store_array(np.arange(3)), 3)
        model = ModelSpec("model", store(content), runtime, **settings)
        measure = MeasureSpec(warmup_s=0.05, timing_s=0.1)
        spec = JobSpec("a test", (model,), data, "top1", measure, conditions=CALM)
        return Request(str(tmp_path), "0" * 16, spec, Block("profile", 0), 1, 0.0)

    return make


def profile(request, folder):
    path = folder / "request.json"
    path.write_text(json.dumps(to_json(request)))
    answer = ask_child(request.spec.models[0].runtime, "profile", path)
    return Profile(**answer["profile"]), json.loads(answer["content"] or "null")


@pytest.mark.tensorflow
def test_the_profile_has_the_operators_inside_xnnpack(models, request_for, tmp_path):
    request = request_for((models / "heavy.tflite").read_bytes(), shape=HEAVY_SHAPE)
    found, operators = profile(request, tmp_path)
    assert (found.problem, found.file_name) == ("", "profile-0-0.json")
    assert sum("Convolution" in operator["name"] for operator in operators) == 3
    assert {operator["source"] for operator in operators} == {"xnnpack"}
    assert [operator["place"] for operator in operators] == list(range(len(operators)))
    assert sum(operator["share"] for operator in operators) == pytest.approx(1)
    assert sum(operator["mean_ns"] for operator in operators) == pytest.approx(found.operators_ns)
    assert 0 < found.operators_ns < found.invoke_ns * 3
    assert found.invokes >= 64


@pytest.mark.tensorflow
def test_built_in_kernels_are_profiled_as_such(models, request_for, tmp_path):
    request = request_for((models / "heavy.tflite").read_bytes(), shape=HEAVY_SHAPE, delegate="none")
    found, operators = profile(request, tmp_path)
    names = ["CONV_2D", "CONV_2D", "CONV_2D", "MEAN", "FULLY_CONNECTED", "SOFTMAX"]
    assert [(operator["name"], operator["source"]) for operator in operators] == [(name, "builtin") for name in names]
    assert 0 < found.operators_ns < found.invoke_ns * 3


@pytest.mark.tensorflow
def test_an_operator_that_xnnpack_leaves_stands_among_its_own(models, request_for, tmp_path):
    found, operators = profile(request_for((models / "mixed.tflite").read_bytes(), batch=256), tmp_path)
    assert found.problem == ""
    sources = {operator["name"]: operator["source"] for operator in operators}
    assert sources.pop("REVERSE_V2") == "builtin"
    assert set(sources.values()) == {"xnnpack"}


@pytest.mark.tensorflow
def test_a_larger_batch_takes_longer(models, request_for, tmp_path):
    content = (models / "heavy.tflite").read_bytes()
    one, four = (profile(request_for(content, shape=HEAVY_SHAPE, batch=batch), tmp_path)[0] for batch in (1, 4))
    assert four.operators_ns > 2 * one.operators_ns


@pytest.mark.tensorflow
def test_a_model_too_small_for_the_runtimes_clock_has_no_profile_but_a_reason(models, request_for, tmp_path):
    found, operators = profile(request_for((models / "plain.tflite").read_bytes()), tmp_path)
    assert operators is None
    assert found.problem.startswith("XNNPACK rounds the time of each operator down to 1 µs: too coarse for 5 operators")


@pytest.mark.tensorflow
def test_a_batch_that_the_graph_does_not_take_is_the_reason(models, request_for, tmp_path):
    found, _ = profile(request_for((models / "fixed.tflite").read_bytes(), batch=4), tmp_path)
    assert found.problem.startswith("litert has no per-operator profile of this model: LiteRt")


@pytest.mark.parametrize(
    ("runtime", "delegate", "problem"),
    [
        ("tflite_runtime", "xnnpack", "tflite_runtime has no per-operator profile; litert has one"),
        ("null", "xnnpack", "null has no per-operator profile; litert has one"),
        ("litert", "gpu", "litert has no per-operator profile on the gpu; it has one for xnnpack and none"),
    ],
)
def test_where_there_is_no_profile_the_problem_says_who_has_one(request_for, runtime, delegate, problem):
    request = request_for(b"never opened", runtime, delegate=delegate)
    assert profiling.run(request) == (Profile(problem=problem), {})
