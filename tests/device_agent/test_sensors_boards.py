"""What the canned boards say; tests/data/boards/README.md has where their files come from."""

from pathlib import Path

import pytest

from device_agent.protocol import Reading
from device_agent.sensors import hottest_c, read_device, read_moment, read_state

BOARDS = Path(__file__).parents[1] / "data" / "boards"
DEBIAN = "Debian GNU/Linux 12 (bookworm)"


@pytest.mark.parametrize(
    ("board", "model", "soc", "ram_kib", "system"),
    [
        ("pi_zero_2w", "Raspberry Pi Zero 2 W Rev 1.0", "brcm,bcm2837", 437900, DEBIAN),
        ("pi_3b", "Raspberry Pi 3 Model B Rev 1.2", "brcm,bcm2837", 943104, DEBIAN),
        ("pi_4b", "Raspberry Pi 4 Model B Rev 1.4", "brcm,bcm2711", 3884276, DEBIAN),
        ("pi_5", "Raspberry Pi 5 Model B Rev 1.0", "brcm,bcm2712", 2071056, DEBIAN),
        ("jetson_nano", "NVIDIA Jetson Nano Developer Kit", "nvidia,tegra210", 4050944, "Ubuntu 18.04.6 LTS"),
        (
            "jetson_orin_nano",
            "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
            "nvidia,tegra234",
            7802880,
            "Ubuntu 22.04.5 LTS",
        ),
    ],
)
def test_a_board_says_what_it_is(board, model, soc, ram_kib, system):
    device = read_device(BOARDS / board)
    assert (device.model, device.soc, device.ram_bytes, device.os) == (model, soc, ram_kib * 1024, system)


@pytest.mark.parametrize(
    ("board", "temperature_c", "clock_mhz", "load_1min", "swap_used_kib"),
    [
        ("pi_zero_2w", 47.236, 1000, 0.31, 30464),
        ("pi_3b", 63.92, 600, 1.04, 0),
        ("pi_4b", 81.303, 1500, 0.05, 0),
        ("pi_5", 68.2, 2400, 3.92, 0),
    ],
)
def test_a_raspberry_pi_says_how_hot_fast_and_busy_it_is(board, temperature_c, clock_mhz, load_1min, swap_used_kib):
    state = read_state(BOARDS / board)
    assert state.temperatures_c == (Reading("cpu-thermal", temperature_c),)
    assert state.clocks_mhz == tuple(Reading(f"cpu{i}", clock_mhz) for i in range(4))
    assert state.governors == ("ondemand",)
    assert (state.load_1min, state.swap_used_bytes) == (load_1min, swap_used_kib * 1024)
    assert state.power_mode is None


@pytest.mark.parametrize(
    ("board", "now", "since_boot"),
    [
        ("pi_zero_2w", (), ()),
        ("pi_3b", ("under-voltage", "throttled"), ("under-voltage", "throttled")),
        ("pi_4b", ("soft temperature limit",), ("frequency capped", "soft temperature limit")),
        ("pi_5", (), ()),
        ("jetson_nano", (), ()),
    ],
)
def test_throttle_bits_are_named(board, now, since_boot):
    state = read_state(BOARDS / board)
    assert (state.throttled_now, state.throttled_since_boot) == (now, since_boot)


def test_a_throttled_raspberry_pi_keeps_its_highest_clock():
    assert read_state(BOARDS / "pi_3b").max_clock_mhz == 1200
    assert read_moment(BOARDS / "pi_3b").clock_mhz == 600


def test_a_raspberry_pi_5_is_asked_through_vcgencmd_since_it_has_no_file():
    assert read_moment(BOARDS / "pi_5").throttle_bits == 0
    assert read_moment(BOARDS / "jetson_nano").throttle_bits is None


def test_a_jetson_nano_is_as_hot_as_its_hottest_real_zone():
    state = read_state(BOARDS / "jetson_nano")
    assert [zone.name for zone in state.temperatures_c] == [
        "AO-therm",
        "CPU-therm",
        "GPU-therm",
        "PLL-therm",
        "thermal-fan-est",
    ]
    assert hottest_c(BOARDS / "jetson_nano") == 45.5
    assert (state.max_clock_mhz, state.governors, state.power_mode) == (1479, ("schedutil",), "MAXN")


def test_zones_of_a_jetson_orin_that_are_switched_off_are_left_out():
    state = read_state(BOARDS / "jetson_orin_nano")
    assert [zone.name for zone in state.temperatures_c] == [
        "cpu-thermal",
        "gpu-thermal",
        "soc0-thermal",
        "soc1-thermal",
        "soc2-thermal",
        "tj-thermal",
    ]
    assert hottest_c(BOARDS / "jetson_orin_nano") == 50.25


def test_cores_of_two_policies_have_two_clocks():
    state = read_state(BOARDS / "jetson_orin_nano")
    assert [clock.value for clock in state.clocks_mhz] == [1420.8] * 4 + [729.6] * 2
    assert [clock.name for clock in state.clocks_mhz] == [f"cpu{i}" for i in range(6)]
    assert (state.max_clock_mhz, state.power_mode) == (1728, "MAXN_SUPER")
    assert state.swap_used_bytes == (16777216 - 15222784) * 1024


def test_a_moment_has_the_hottest_zone_and_the_fastest_core():
    moment = read_moment(BOARDS / "jetson_orin_nano")
    assert (moment.temperature_c, moment.clock_mhz, moment.max_clock_mhz) == (50.25, 1420.8, 1728)
