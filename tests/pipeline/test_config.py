from pathlib import Path

import pytest

from pipeline import compression
from pipeline.config import Step, experiment_schema, load_experiment
from pipeline.errors import ConfigError
from pipeline.results.record import BudgetLine

OWN = "name: mine\nmodel: my.keras\ndata: {file: d.npz}\nmetric: top1\nvariants:\n  float32: []\n"


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "e.yaml"
    path.write_text(text)
    return path


def messages(tmp_path: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_experiment(written(tmp_path, text))
    return [f"{mistake.line}: {mistake.message}" for mistake in caught.value.mistakes]


def test_the_reference_experiment_is_valid_and_has_the_five_variants():
    experiment = load_experiment(Path("configs/experiments/fashion_mnist.yaml"))
    names = [variant.name for variant in experiment.variants]
    assert names == ["float32", "float16", "dynamic_range", "int8", "pruned_int8"]
    assert experiment.metric == "top1"
    assert experiment.model.name == "fashion_mnist.keras"


def test_the_tour_has_every_technique():
    experiment = load_experiment(Path("configs/experiments/compression_tour.yaml"))
    assert {step.technique for variant in experiment.variants for step in variant.steps} == set(compression.known())


def test_paths_are_relative_to_the_file_and_defaults_are_filled_in(tmp_path):
    experiment = load_experiment(
        written(tmp_path, OWN + "  q:\n    - quantization: {mode: int8}\nbudget: {p50_ms: 5}\n")
    )
    assert experiment.model == tmp_path / "my.keras"
    assert experiment.data.file == tmp_path / "d.npz"
    settings = {"mode": "int8", "calibration_samples": 200, "io": None, "allow_float": False, "strict": False}
    settings |= {"block_size": None, "overrides": []}
    assert experiment.variants[1].steps == (Step("quantization", settings, {"mode": "int8"}),)
    assert experiment.baseline == "float32"
    assert experiment.budget == (BudgetLine("p50_ms", 5.0),)


def test_without_float32_the_first_variant_is_the_baseline(tmp_path):
    text = OWN.replace("float32: []", "b: []\n  a: []")
    assert load_experiment(written(tmp_path, text)).baseline == "b"


def test_an_unknown_technique_lists_those_that_exist(tmp_path):
    assert messages(tmp_path, OWN + "  p:\n    - prun: {}\n") == [
        '8: unknown technique "prun"; known: channel_pruning, distillation, low_rank, magnitude_pruning, quantization, '
        "quantization_aware_training, selective_quantization, weight_clustering"
    ]


def test_a_step_with_bad_settings_is_told_with_its_place(tmp_path):
    assert messages(tmp_path, OWN + "  q:\n    - quantization:\n        mode: int7\n        calib: 3\n") == [
        '9: variants.q[0].quantization.mode is "int7"; expected one of float32, float16, dynamic_range, '
        "int8_weight_only, int8, int16x8, int4",
        '10: unknown key "variants.q[0].quantization.calib"; known: strict, calibration_samples, mode, io, '
        "allow_float, block_size, overrides",
    ]


def test_a_step_that_configures_the_conversion_must_come_last(tmp_path):
    text = OWN + "  q:\n    - quantization: {mode: int8}\n    - magnitude_pruning: {}\n"
    assert messages(tmp_path, text) == [
        "8: variants.q[0] is quantization; it configures the conversion and must come last"
    ]


def test_a_step_is_one_technique(tmp_path):
    text = OWN + "  q:\n    - {quantization: {mode: int8}, magnitude_pruning: {}}\n"
    assert messages(tmp_path, text) == ["8: variants.q[0] has 2 keys; expected one technique with its settings"]


def test_unknown_names_list_what_exists(tmp_path):
    text = OWN.replace("top1", "top2") + "runtime: onnx\nbaseline: q\n"
    assert messages(tmp_path, text) == [
        '4: metric is "top2"; expected one of top1, top5',
        '7: runtime is "onnx"; expected one of litert, null, tflite_runtime',
        '8: baseline is "q"; expected one of float32',
    ]


def test_task_and_model_exclude_each_other(tmp_path):
    assert messages(tmp_path, OWN + "task: fashion_mnist\n") == [
        '2: "model" and "task" exclude each other',
        '3: data.file goes with "model"; a task takes data.folder',
        '4: "metric" and "task" exclude each other',
    ]


def test_neither_task_nor_model_is_told(tmp_path):
    found = messages(tmp_path, "name: x\nvariants: {a: []}\n")
    assert [text.split(";")[0] for text in found] == [
        '1: "data.file" is missing',
        '1: "metric" is missing',
        '1: "model" is missing',
    ]


def test_a_variant_name_that_could_not_be_a_file_name_is_refused(tmp_path):
    assert messages(tmp_path, OWN + "  ../x: []\n") == [
        '7: variant name is "../x"; expected letters, digits, _ . and -, 64 at most'
    ]


def test_an_experiment_without_variants_is_refused(tmp_path):
    text = OWN.replace("variants:\n  float32: []", "variants: {}")
    assert messages(tmp_path, text) == ["5: variants is a mapping; expected a mapping of names to lists of steps"]


def test_the_schema_names_every_key():
    assert {"schema", "task", "model", "variants", "budget"} <= set(experiment_schema()["properties"])


def test_how_numbers_are_taken_is_read_with_its_units(tmp_path):
    text = OWN + (
        "threads: [1, 2]\ndelegate: none\nmin_snr_db: 20\n"
        "measure: {precision: 1.5%, time_limit: 10min, smallest_effect: 5%, sustained: 0.5h, profile: true, batch: 8}\n"
    )
    experiment = load_experiment(written(tmp_path, text))
    assert (experiment.threads, experiment.delegate, experiment.min_snr_db) == ((1, 2), "none", 20.0)
    measure = experiment.measure
    assert (measure.precision, measure.time_limit_s, measure.smallest_effect) == (0.015, 600.0, 0.05)
    assert (measure.sustained_s, measure.profile, measure.batch) == (1800.0, True, 8)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("measure: {precision: 2}", "measure.precision is 2; expected a percentage such as 2%"),
        ("measure: {precision: 0%}", 'measure.precision is "0%"; expected a percentage up to 100%, such as 2%: half'),
        ("measure: {sustained: 25h}", 'measure.sustained is "25h"; expected a duration up to 24h, such as 30min: how'),
        ("measure: {time_limit: 0s}", 'measure.time_limit is "0s"; expected a duration up to 168h, such as 10min: how'),
        ("measure: {batch: 0}", "measure.batch is 0; expected an integer from 1 to 65536: samples that one"),
        ("measure: {profile: 1}", "measure.profile is 1; expected true or false: whether each operator"),
        ("measure: {sustained: 30 minutes}", "expected a duration such as 90s, 30min or 2h"),
        ("threads: [1, 1]", "threads is a list; expected no number of threads twice"),
        ("threads: 0", "threads is 0; expected an integer from 1 to 256, or a list of such"),
        ("delegate: tpu", 'delegate is "tpu"; expected one of xnnpack, none, gpu'),
    ],
)
def test_a_number_that_cannot_be_is_told_with_what_is_allowed(tmp_path, line, message):
    [found] = messages(tmp_path, OWN + line + "\n")
    assert message in found


def test_a_variant_may_not_be_called_as_another_with_its_threads(tmp_path):
    [found] = messages(tmp_path, OWN + "  float32.t2: []\nthreads: [1, 2]\n")
    assert found == '7: variant name "float32.t2" is what "float32" is called with these threads; rename it'


def test_devices_are_one_name_or_several_and_local_by_default(tmp_path):
    def devices(line: str) -> tuple[str, ...]:
        return load_experiment(written(tmp_path, OWN + line)).devices

    assert devices("") == ("local",)
    assert devices("device: tag:lab\n") == ("tag:lab",)
    assert devices("devices: [pi4-a, tag:lab]\n") == ("pi4-a", "tag:lab")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("device: pi4-a\ndevices: [pi4-b]\n", '7: "device" and "devices" exclude each other'),
        ("devices: [pi4-a, pi4-a]\n", '7: devices is a list; expected each device once, and "pi4-a" is there twice'),
        ("devices: []\n", "7: devices is a list; expected a list of one device or more, each a name or tag:NAME"),
        ("devices: pi4-a\n", '7: devices is "pi4-a"; expected a list of one device or more, each a name or tag:NAME'),
    ],
)
def test_devices_that_cannot_be_meant_are_told(tmp_path, lines, message):
    assert messages(tmp_path, OWN + lines) == [message]
