"""Power rails of the canned boards and of odd ones."""

from pathlib import Path

import pytest

from device_agent.protocol import Reading
from device_agent.sensors import read_rails, read_state, total_w

BOARDS = Path(__file__).parents[1] / "data" / "boards"
HWMON = "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3/"


def watts(rails):
    return {rail.name: rail.value for rail in rails}


def write(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.mark.parametrize(
    ("board", "expected", "total"),
    [
        ("jetson_nano", {"POM_5V_IN": 2.532, "POM_5V_GPU": 0.123, "POM_5V_CPU": 0.401}, 2.532),
        ("jetson_orin_nano", {"VDD_IN": 4.82304, "VDD_CPU_GPU_CV": 0.522496, "VDD_SOC": 1.474704}, 4.82304),
        ("pi_5", {"3V7_WL_SW": 0.346629, "3V3_SYS": 0.290732, "DDR_VDD2": 0.249057, "VDD_CORE": 5.363607}, 6.250026),
    ],
)
def test_a_board_with_monitors_tells_the_power_of_its_rails_in_watts(board, expected, total):
    rails = read_rails(BOARDS / board)
    assert watts(rails) == pytest.approx(expected, abs=1e-6)
    assert total_w(rails) == pytest.approx(total, abs=1e-6)
    assert read_state(BOARDS / board).rails_w == rails


@pytest.mark.parametrize("board", ["pi_zero_2w", "pi_3b", "pi_4b"])
def test_a_board_without_monitors_has_no_rails_and_no_total(board):
    assert read_rails(BOARDS / board) == ()
    assert total_w(()) is None


def test_the_rail_that_feeds_the_others_is_not_added_to_them():
    assert total_w((Reading("VDD_IN", 5.0), Reading("VDD_SOC", 1.5))) == 5.0
    assert total_w((Reading("VDD_GPU_SOC", 2.0), Reading("VDD_CPU_CV", 1.0))) == 3.0


def test_a_rail_without_a_current_is_left_out(tmp_path):
    write(tmp_path, {HWMON + "in1_label": "VDD_IN\n", HWMON + "in1_input": "5000\n", HWMON + "curr1_input": "400\n"})
    write(tmp_path, {HWMON + "in2_label": "NC\n", HWMON + "in2_input": "5000\n"})
    assert read_rails(tmp_path) == (Reading("VDD_IN", 2.0),)


def test_a_sum_over_channels_is_no_rail(tmp_path):
    write(tmp_path, {HWMON + f"{name}4_input": "5000\n" for name in ("in", "curr")})
    write(tmp_path, {HWMON + "in4_label": "sum of shunt voltages\n"})
    assert read_rails(tmp_path) == ()


def test_two_monitors_give_the_rails_of_both(tmp_path):
    for address, label in (("1-0040", "VDD_GPU_SOC"), ("1-0041", "VDDQ_VDD2_1V8AO")):
        folder = f"sys/bus/i2c/drivers/ina3221/{address}/hwmon/hwmon{address[-1]}/"
        write(tmp_path, {folder + "in2_label": label, folder + "in2_input": "5000", folder + "curr2_input": "100"})
    assert read_rails(tmp_path) == (Reading("VDD_GPU_SOC", 0.5), Reading("VDDQ_VDD2_1V8AO", 0.5))


def test_the_folder_of_older_jetpacks_is_read_too(tmp_path):
    folder = "sys/bus/i2c/drivers/ina3221x/0-0040/iio_device/"
    write(tmp_path, {folder + "rail_name_0": "VDD_SYS_GPU\n", folder + "in_power0_input": "180\n"})
    assert read_rails(tmp_path) == (Reading("VDD_SYS_GPU", 0.18),)


def test_a_pmic_line_that_makes_no_sense_costs_its_own_rail_only(tmp_path):
    lines = (
        "VDD_CORE_A current(7)=1.5A\nVDD_CORE_V volt(15)=0.9V\nHDMI_A current(22)=nanA\nHDMI_V volt(23)=5.1V\nEXT5V_V"
    )
    write(tmp_path, {"usr/bin/vcgencmd": f"#!/bin/sh\ncat <<'END'\n{lines}\nEND\n"})
    (tmp_path / "usr/bin/vcgencmd").chmod(0o755)
    assert watts(read_rails(tmp_path)) == pytest.approx({"VDD_CORE": 1.35})
