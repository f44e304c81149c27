"""Every mode of quantization on tiny models: what the file holds, how well it works, what is refused."""

import numpy as np
import pytest
from runtime_pythons import open_in

from pipeline.compression.quantization import Settings
from pipeline.flatbuffer.recipe import recipe_of
from pipeline.yaml_file import mistakes_in

pytestmark = pytest.mark.tensorflow

INT4_DENSE = [{"operators": "FULLY_CONNECTED", "mode": "int4"}]
# Settings, the types of weights, of inputs and outputs, and the least signal-to-noise ratio.
MODES = {
    "float16": ({"mode": "float16"}, ["float16"], "float32", 60),
    "dynamic_range": ({"mode": "dynamic_range"}, ["float32", "int8"], "float32", 40),
    "int8": ({"mode": "int8"}, ["int8"], "int8", 40),
    "int8_float_io": ({"mode": "int8", "io": "float32"}, ["int8"], "float32", 40),
    "int16x8": ({"mode": "int16x8"}, ["int8"], "int16", 45),
    "int16x8_float_io": ({"mode": "int16x8", "io": "float32"}, ["int8"], "float32", 45),
    "int8_weight_only": ({"mode": "int8_weight_only"}, ["int8"], "float32", 45),
    "int4": ({"mode": "int4"}, ["int4"], "float32", 25),
    "int4_blocks": ({"mode": "int4", "block_size": 32}, ["float32", "int4"], "float32", 25),
    "int8_int4_dense": (
        {"mode": "int8", "io": "float32", "overrides": INT4_DENSE},
        ["int4", "int8"],
        "float32",
        25,
    ),
    "float32_int8_layer": (
        {"mode": "float32", "overrides": [{"layers": "conv2d_1", "mode": "int8"}]},
        ["float32", "int8"],
        "float32",
        40,
    ),
    "int8_int16_layer": (
        {"mode": "int8", "io": "float32", "overrides": [{"layers": "conv2d", "mode": "int16x8"}]},
        ["int8"],
        "float32",
        40,
    ),
}
ODD = {
    "int4_mixture": ({"mode": "int4"}, {"model": "mixture"}),
    "blocks_do_not_divide": ({"mode": "int4", "block_size": 32}, {"model": "mixture"}),
    "blocks_mixture": (
        {"mode": "int8_weight_only", "overrides": [{"layers": "narrow", "mode": "int4", "block_size": 32}]},
        {"model": "mixture"},
    ),
    "int8_mixture": ({"mode": "int8"}, {"model": "mixture"}),
    "overrides_mixture": ({"mode": "int8", "overrides": INT4_DENSE}, {"model": "mixture"}),
    "overrides_mixture_allowed": ({"mode": "int8", "overrides": INT4_DENSE, "allow_float": True}, {"model": "mixture"}),
    "int16_mixture": ({"mode": "int16x8"}, {"model": "mixture"}),
    "int16_mixture_allowed": ({"mode": "int16x8", "allow_float": True}, {"model": "mixture"}),
    "override_nothing": ({"mode": "int8", "overrides": [{"layers": "nowhere", "mode": "int4"}]}, {}),
    "override_weightless": ({"mode": "int8", "overrides": [{"layers": "add", "mode": "int4"}]}, {}),
    "dynamic_loop": ({"mode": "dynamic_range"}, {"model": "loop"}),
    "int8_loop": ({"mode": "int8"}, {"model": "loop"}),
    "int8_unrolled": ({"mode": "int8"}, {"model": "unrolled"}),
    "int4_large": ({"mode": "int4"}, {"model": "large"}),
    "int4_tokens": ({"mode": "int4"}, {"model": "tokens.keras"}),
    "int16_tokens": ({"mode": "int16x8"}, {"model": "tokens.keras"}),
    "int8_trained_for_it": ({"mode": "int8"}, {"model": "trained_for_int8"}),
    "float16_trained_for_int8": ({"mode": "float16"}, {"model": "trained_for_int8"}),
    "int8_of_keras_int8": ({"mode": "int8"}, {"model": "quantized_by_keras"}),
    "one_class": ({"mode": "int8"}, {"one_class": True}),
    "twenty": ({"mode": "int8", "calibration_samples": 20}, {}),
    "weight_only_on_tflite_runtime": ({"mode": "int8_weight_only"}, {"runtime": "tflite_runtime"}),
    "int4_on_tflite_runtime": ({"mode": "int4"}, {"runtime": "tflite_runtime"}),
    "overrides_on_tflite_runtime": ({"mode": "int8", "overrides": INT4_DENSE}, {"runtime": "tflite_runtime"}),
    "keras2": ({"mode": "int8", "overrides": [{"layers": "conv2d_1", "mode": "float32"}]}, {"model": "keras2.h5"}),
    "keras3": ({"mode": "int8", "overrides": [{"layers": "conv2d_1", "mode": "float32"}]}, {}),
}


@pytest.fixture(scope="module")
def modes(converted):
    return converted({name: ("quantization", settings, {}) for name, (settings, *_) in MODES.items()})


@pytest.fixture(scope="module")
def odd(converted):
    return converted({name: ("quantization", *case) for name, case in ODD.items()})


@pytest.fixture(scope="module")
def graphs(converted):
    """Each mode that names no layer, on a SavedModel without Keras's layers; one that names an operator's output."""
    cases = {name: settings for name, (settings, *_) in MODES.items() if "layers" not in str(settings)}
    cases["named"] = {"mode": "float32", "overrides": [{"layers": "*conv2d_1*", "mode": "int8"}]}
    return converted({name: ("quantization", case, {"model": "saved_model"}) for name, case in cases.items()})


def test_a_model_without_layers_takes_each_mode(graphs):
    for name, found in graphs.items():
        _, dtypes, end, least_db = MODES["float32_int8_layer" if name == "named" else name]
        assert (found["dtypes"], found["ends"]) == (dtypes, [end, end]), name
        assert found["snr_db"] > least_db, name


@pytest.mark.parametrize("name", MODES)
def test_each_mode_has_its_types_is_smaller_and_works(modes, name):
    _, dtypes, end, least_db = MODES[name]
    found = modes[name]
    assert (found["dtypes"], found["ends"]) == (dtypes, [end, end])
    assert found["snr_db"] > least_db
    assert found["accuracy"] > 0.95
    assert found["gzip_bytes"] < found["float_gzip_bytes"]
    assert len(found["indices"]) == (200 if ("int8" in name and "only" not in name) or "int16" in name else 0)


def test_two_processes_make_the_same_bytes_in_each_mode(modes, converted):
    again = converted({name: ("quantization", settings, {}) for name, (settings, *_) in MODES.items()})
    assert {name: found["sha256"] for name, found in again.items()} == {
        name: found["sha256"] for name, found in modes.items()
    }


@pytest.mark.parametrize("name", ["int4", "int4_blocks", "int8_int4_dense", "int8_int16_layer"])
def test_files_of_ai_edge_quantizer_run_in_the_agent_s_litert(modes, laid_out, name):
    opened = open_in("litert", laid_out / f"{modes[name]['sha256']}.tflite", "xnnpack")
    assert (opened["output_shape"], len(set(opened["output"][0]))) == ([1, 4], 4)


def test_weights_that_a_mode_does_not_fit_are_named_with_the_reason(modes, odd):
    left = dict(odd["int4_mixture"]["left"])
    assert left["spread"] == "DEPTHWISE_CONV_2D: weights stay float32: ai-edge-quantizer has no int4 for it"
    small = "weights stay float32: 72, and TensorFlow leaves fewer than 1024"
    assert ["conv2d", f"CONV_2D: {small}"] in modes["dynamic_range"]["left"]
    blocks = "weights stay float32: ai-edge-quantizer has no int4 in blocks of 32 for it"
    assert ["conv2d_1", f"CONV_2D: {blocks}"] in modes["int4_blocks"]["left"]
    divided = "weights stay float32: 40 in a row do not divide into blocks of 32"
    assert ["narrow", f"FULLY_CONNECTED: {divided}"] in odd["blocks_do_not_divide"]["left"]
    assert modes["int4"]["left"] == modes["int8"]["left"] == []


def test_an_override_that_changes_nothing_is_an_error(odd):
    assert (
        'override "narrow" "*" to int4 changed nothing: ai-edge-quantizer left all as they were: narrow'
        in odd["blocks_mixture"]["error"]
    )
    assert 'no operator is met by layers "nowhere" and operators "*"; the model has' in odd["override_nothing"]["error"]
    assert "changed nothing: they have no weights: add (ADD)" in odd["override_weightless"]["error"]
    assert "mode dynamic_range changed nothing" in odd["dynamic_loop"]["error"]


def test_patterns_are_met_by_the_names_that_keras_gives_layers(odd):
    for name in ("keras2", "keras3"):
        assert odd[name]["weights"] == {"conv2d": "int8", "conv2d_1": "float32", "dense": "int8"}


def test_operators_without_an_integer_kernel_are_an_error_or_named(odd):
    assert ["norm", "NEG: computed in float32: TensorFlow has no int8 for it"] in odd["int8_mixture"]["left"]
    assert "ai-edge-quantizer has no int8 for norm: NEG; set allow_float: true" in odd["overrides_mixture"]["error"]
    named = ["norm", "NEG: computed in float32: ai-edge-quantizer has no int8 for it"]
    assert named in odd["overrides_mixture_allowed"]["left"]
    assert "'NEG'. Set allow_float: true" in odd["int16_mixture"]["error"]


def test_a_model_that_a_mode_cannot_do_is_refused_with_what_can(odd):
    expected = {
        "int16_mixture_allowed": "does not run on litert: it has no int16 kernel for SQUARED_DIFFERENCE",
        "int8_loop": "cannot be calibrated through the loop of a recurrent layer",
        "int16_tokens": "does not take inputs of int32",
        "float16_trained_for_int8": "mode float16 does not fit a model of quantization-aware training",
        "int8_of_keras_int8": "the model is quantized already: Keras has done it to dense",
        "int4_on_tflite_runtime": "int4 does not run on tflite_runtime 2.14: it has no kernels for int4 weights",
        "overrides_on_tflite_runtime": "overrides does not run on tflite_runtime 2.14",
    }
    for name, text in expected.items():
        assert text in odd[name]["error"]
        assert "choose" in odd[name]["error"] or "save it before" in odd[name]["error"]


def test_unusual_models_are_quantized_all_the_same(odd):
    assert odd["int8_unrolled"]["dtypes"] == odd["int8_trained_for_it"]["dtypes"] == ["int8"]
    assert odd["int4_large"]["weights"] == {"first": "int4", "second": "int4"}
    assert odd["int4_tokens"]["weights"] == {"embedding": "float32", "dense_1": "int4"}
    assert odd["int4_tokens"]["ends"] == ["int32", "float32"]


def test_int8_weights_alone_run_in_the_old_runtime_too(odd, laid_out):
    file = laid_out / f"{odd['weight_only_on_tflite_runtime']['sha256']}.tflite"
    old, new = (open_in(runtime, file, "xnnpack")["output"] for runtime in ("tflite_runtime", "litert"))
    assert np.allclose(old, new, atol=1e-4)


def test_doubtful_calibration_is_noted_with_the_ratio_that_came_of_it(odd, modes):
    [one], [few] = odd["one_class"]["notes"], odd["twenty"]["notes"]
    assert "calibrated with samples of one class only, 2: SNR against the float model" in one
    assert "calibrated with 20 samples, fewer than 100" in few
    assert "dB over 200 held-out training samples" in few
    assert modes["int8"]["notes"] == []
    assert odd["twenty"]["indices"] == sorted(set(odd["twenty"]["indices"]))
    assert set(np.diff(odd["twenty"]["indices"])) != {1}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "float32"}, "changes nothing without overrides"),
        ({"mode": "int8", "io": "int16"}, 'io is "int16", which mode int8 does not have; expected int8 or float32'),
        ({"mode": "int4", "io": "float32"}, "expected no io: inputs and outputs stay as they are"),
        ({"mode": "int8", "block_size": 32}, "block_size is 32, which mode int8 does not have; it goes with int4"),
        ({"mode": "int4", "block_size": 33}, "block_size is 33; expected one of 32, 64, 128, 256"),
        ({"mode": "int2"}, 'mode is "int2"; expected one of float32, float16'),
        ({"mode": "int8", "overrides": [{"layers": "a", "mode": "int8", "block_size": 64}]}, "it goes with int4"),
    ],
)
def test_settings_that_do_not_go_together_are_a_mistake(settings, message):
    assert any(message in text for _, text in mistakes_in(settings, Settings))


def test_new_modes_are_built_measured_and_reported(bench):
    variants = """\
  float32: []
  int16x8:
    - quantization: {mode: int16x8}
  int4:
    - quantization: {mode: int4}
  mixed:
    - quantization: {mode: int8, overrides: [{operators: FULLY_CONNECTED, mode: int4}]}
"""
    done = bench.edgepress("run", bench.experiment(variants=variants), "--quiet")
    assert done.returncode == 0, done.stdout + done.stderr
    by_name = {variant["name"]: variant for variant in bench.record()["variants"]}
    assert all(variant["valid"] for variant in by_name.values()), [v["failure"] for v in by_name.values()]
    assert all(variant["numbers"]["score"]["value"] > 0.9 for variant in by_name.values())
    [run] = (bench.folder / "runs").iterdir()
    recipes = {path.stem: recipe_of(path.read_bytes()) for path in (run / "models").iterdir()}
    kept = {name: len(recipe.calibration_indices) for name, recipe in recipes.items()}
    assert kept == {"float32": 0, "int16x8": 200, "int4": 0, "mixed": 200}


def test_what_the_old_runtime_lies_about_is_refused_before_anything_is_trained(bench):
    variants = "  float32: []\n  int4:\n    - magnitude_pruning: {epochs: 900}\n    - quantization: {mode: int4}\n"
    done = bench.edgepress("run", bench.experiment(variants=variants, runtime="tflite_runtime"), "--quiet")
    assert done.returncode == 0, done.stdout + done.stderr
    failure = bench.record()["variants"][1]["failure"]
    assert "int4 does not run on tflite_runtime 2.14" in failure["message"]
    assert '"mode: int8_weight_only"' in failure["message"]
