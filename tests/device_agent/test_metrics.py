import numpy as np
import pytest

from device_agent import metrics

OUTPUTS = np.array([[0.1, 0.7, 0.2, 0, 0, 0], [0.5, 0.1, 0.1, 0.1, 0.1, 0.1], [0, 1, 2, 3, 4, 5]], np.float32)


def test_top1_is_one_where_the_largest_output_is_the_label():
    values = metrics.top1(OUTPUTS, np.array([1, 2, 5], np.uint8))
    assert (values.dtype, values.tolist()) == (np.float32, [1, 0, 1])


def test_top5_is_one_where_the_label_is_among_the_five_largest():
    assert metrics.top5(OUTPUTS, np.array([0, 4, 0])).tolist() == [1, 1, 0]


def test_of_equal_outputs_the_lowest_class_counts():
    assert metrics.top1(np.zeros((2, 3)), np.array([0, 1])).tolist() == [1, 0]


def test_unsigned_outputs_are_compared_as_numbers():
    assert metrics.top1(np.array([[0, 200, 100]], np.uint8), np.array([1])).tolist() == [1]


@pytest.mark.parametrize(
    ("outputs", "labels", "message"),
    [
        (np.zeros(3), np.zeros(3, int), r"top5 got outputs \[3\] and labels \[3\]; expected \[samples, classes\] and"),
        (np.zeros((2, 6)), np.zeros((2, 1), int), r"outputs \[2, 6\] and labels \[2, 1\]; expected"),
        (np.zeros((2, 6)), np.zeros(3, int), r"outputs \[2, 6\] and labels \[3\]; expected"),
        (np.zeros((2, 4)), np.zeros(2, int), r"outputs \[2, 4\] and labels \[2\]; expected at least 5 classes"),
        (np.zeros((2, 6)), np.zeros(2), "top5 got labels of type float64; expected integers"),
        (np.zeros((2, 6)), np.array([0, 6]), "top5 got labels 0 to 6; expected 0 to 5"),
        (np.zeros((2, 6)), np.array([-1, 0]), "top5 got labels -1 to 0; expected 0 to 5"),
    ],
)
def test_what_the_metric_is_not_defined_for_is_refused_with_shapes(outputs, labels, message):
    with pytest.raises(metrics.MetricMismatch, match=message):
        metrics.top5(outputs, labels)


def test_a_metric_is_found_by_its_functions_name():
    assert metrics.known() == ["top1", "top5"]
    assert metrics.find("top1") is metrics.top1


@pytest.mark.parametrize("name", ["find", "_check", "np", "top9"])
def test_an_unknown_metric_lists_those_that_exist(name):
    with pytest.raises(metrics.MetricMismatch, match=f'unknown metric "{name}"; known: top1, top5'):
        metrics.find(name)
