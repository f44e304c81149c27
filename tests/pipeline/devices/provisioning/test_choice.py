"""Which runtime six boards get, and what those are told that get none."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.devices.provisioning.choice import choose
from pipeline.devices.provisioning.probe import BoardPython, Probe, parse_probe
from pipeline.errors import NoRuntimeFits, UsageError

PROBES = Path(__file__).parents[3] / "data" / "probes"


def probe_of(board: str) -> Probe:
    return parse_probe((PROBES / f"{board}.txt").read_text(), board)


def with_python(probe: Probe, **changes) -> Probe:
    return replace(probe, pythons=(replace(probe.pythons[0], **changes),))


def refusal(probe: Probe, *wanted: str) -> str:
    with pytest.raises(NoRuntimeFits) as refused:
        choose(probe, "board", wanted)
    return str(refused.value)


@pytest.mark.parametrize(
    ("board", "titles", "machine", "python"),
    [
        ("pi_zero_2w", ["ai-edge-litert 2.3.0"], "aarch64", "/usr/bin/python3.11"),
        ("pi_3b", ["tflite-runtime 2.14.0"], "armv7l", "/usr/bin/python3.11"),
        ("pi_4b", ["ai-edge-litert 2.3.0"], "aarch64", "/usr/bin/python3.11"),
        ("pi_5", ["ai-edge-litert 2.3.0"], "aarch64", "/usr/bin/python3.13"),
        ("jetson_orin_nano", ["ai-edge-litert 2.3.0"], "aarch64", "/usr/bin/python3.10"),
    ],
)
def test_a_board_gets_the_better_runtime_that_has_a_wheel_for_it(board, titles, machine, python):
    choice = choose(probe_of(board), board)
    assert [lock.title for lock in choice.locks] == titles
    assert (choice.machine, choice.python.path) == (machine, python)


def test_where_numpy_has_no_wheel_the_boards_own_is_taken():
    assert choose(probe_of("pi_3b"), "pi").board_numpy
    assert not choose(probe_of("pi_4b"), "pi").board_numpy


def test_a_board_without_numpy_for_which_there_is_no_wheel_is_told_how_to_get_it():
    told = refusal(with_python(probe_of("pi_3b"), numpy=None))
    assert told.startswith("board (Raspberry Pi 3 Model B Rev 1.2): no runtime can run there:\n  litert: Python 3.11.2")
    assert "on armv7l has no wheel; there are some for aarch64: 3.9 to 3.14, x86_64: 3.9 to 3.14" in told
    assert "tflite_runtime: there is no wheel of numpy for armv7l, and Python 3.11.2 (/usr/bin/python3.11) has " in told
    assert told.endswith("sudo apt-get install python3-numpy")


def test_a_numpy_that_tflite_runtime_cannot_use_is_named():
    assert "has 2.2.4; one from 1.21 on and below 2 is needed" in refusal(
        with_python(probe_of("pi_3b"), numpy=(2, 2, 4))
    )


def test_the_python_of_a_jetson_nano_is_too_old():
    told = refusal(probe_of("jetson_nano"))
    for runtime in ("litert", "tflite_runtime"):
        assert f"{runtime}: Python 3.6.9 (/usr/bin/python3.6) is too old; 3.9 or later is needed" in told


def test_a_jetson_nano_with_a_newer_python_beside_its_own_gets_litert():
    probe = probe_of("jetson_nano")
    newer = BoardPython("/usr/local/bin/python3.9", (3, 9, 19), "cpython", 64, (2, 27), None)
    choice = choose(replace(probe, pythons=(*probe.pythons, newer)), "nano")
    assert (choice.python, choice.runtimes) == (newer, ("litert",))


def test_a_glibc_that_is_too_old_is_named_with_the_one_that_is_needed():
    told = refusal(with_python(probe_of("pi_4b"), glibc=(2, 31)), "tflite_runtime")
    assert "tflite-runtime 2.14.0 for Python 3.11.2 (/usr/bin/python3.11) needs glibc 2.34; the board has 2.31" in told
    assert choose(with_python(probe_of("pi_4b"), glibc=(2, 31)), "pi").runtimes == ("litert",)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"glibc": None}, "is not built with glibc"),
        ({"kind": "pypy"}, "is pypy; expected an ordinary cpython"),
        ({"kind": "cpythont", "version": (3, 13, 1)}, "is cpythont; expected an ordinary cpython"),
        (
            {"missing": ("ctypes", "json")},
            "lacks ctypes, json of the standard library; on Debian: sudo apt-get install",
        ),
        ({"version": (3, 15, 0)}, "Python 3.15.0 (/usr/bin/python3.11) on aarch64 has no wheel"),
    ],
)
def test_a_python_that_will_not_do_is_told_with_its_reason(changes, reason):
    assert reason in refusal(with_python(probe_of("pi_4b"), **changes))


def test_an_armv6_board_gets_none_of_the_wheels_for_armv7():
    assert "on armv6l (32 bits) has no wheel" in refusal(replace(probe_of("pi_3b"), machine="armv6l"))


def test_a_board_without_python_is_told_to_install_one():
    told = refusal(replace(probe_of("pi_4b"), pythons=()))
    assert told == "board has no Python 3; on Debian: sudo apt-get install python3"


def test_both_runtimes_are_taken_when_both_are_asked_for():
    choice = choose(probe_of("pi_4b"), "pi", ("litert", "tflite_runtime"))
    assert (choice.runtimes, choice.board_numpy) == (("litert", "tflite_runtime"), False)


@pytest.mark.parametrize("wanted", [("tflite_runtime", "litert"), ("litert", "tflite_runtime", "litert")])
def test_the_same_runtimes_asked_for_in_another_way_are_the_same_choice(wanted):
    probe = probe_of("pi_4b")
    assert choose(probe, "pi", wanted) == choose(probe, "pi", ("litert", "tflite_runtime"))


def test_two_runtimes_of_which_one_cannot_run_there_are_refused():
    told = refusal(probe_of("pi_5"), "litert", "tflite_runtime")
    assert "no Python there runs litert and tflite_runtime:\n  tflite_runtime: Python 3.13.5" in told


def test_an_unknown_runtime_lists_the_known():
    with pytest.raises(UsageError, match=re.escape('unknown runtime "onnx"; known: litert, tflite_runtime')):
        choose(probe_of("pi_4b"), "pi", ("onnx",))
