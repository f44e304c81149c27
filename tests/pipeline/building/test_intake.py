from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.building.intake import take_in
from pipeline.cache import Cache
from pipeline.config import load_experiment
from pipeline.errors import ModelError

REFERENCE = Path(__file__).parents[3] / "configs" / "experiments" / "fashion_mnist.yaml"


def test_a_task_that_was_never_trained_says_what_trains_it(tmp_path):
    experiment = replace(load_experiment(REFERENCE), model=tmp_path / "none.keras")
    with pytest.raises(
        ModelError, match=r'task fashion_mnist has no checkpoint yet; .*"edgepress train fashion_mnist"'
    ):
        take_in(experiment, Cache(tmp_path))


def test_a_model_is_kept_by_its_content(tmp_path):
    experiment = load_experiment(REFERENCE)
    kept = take_in(experiment, Cache(tmp_path))
    assert kept.kept.read_bytes() == experiment.model.read_bytes()
    assert kept.kept.parent.name == kept.sha256
