"""Single files: what they mean, and what is made of those that are missing or make no sense."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from device_agent.protocol import BoardState, Reading, encode, to_json
from device_agent.sensors import hottest_c, read_device, read_moment, read_rails, read_state
from device_agent.sensors.vcgencmd import ask_vcgencmd

BOARDS = Path(__file__).parents[1] / "data" / "boards"
ZONE = "sys/class/thermal/thermal_zone0/"
POLICY = "sys/devices/system/cpu/cpufreq/policy0/"
THROTTLED = "sys/devices/platform/soc/soc:firmware/get_throttled"

GARBAGE = {
    "nothing": b"",
    "zero bytes": b"\0\0\0",
    "no UTF-8": b"\xff\xfe\x80\n",
    "words": b"no such reading\n",
    "a sign": b"-",
    "too many digits": b"9" * 5000,
    "infinity": b"inf 1e999 nan\n",
    "lines": b"MemTotal: lots\nSwapTotal: -1 kB\ncpu x\npswpin\npmode:\n\n:\n",
}


@pytest.fixture
def write(tmp_path):
    def write_file(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write_file


@pytest.mark.parametrize(
    ("files", "model"),
    [
        ({"proc/cpuinfo": "processor\t: 0\nmodel name\t: Intel(R) N100\n"}, "Intel(R) N100"),
        (
            {"proc/cpuinfo": "model\t\t: 85\nModel\t\t: Raspberry Pi 4 Model B Rev 1.5\n"},
            "Raspberry Pi 4 Model B Rev 1.5",
        ),
        ({"sys_vendor": "AZW\n", "product_name": "MINI S\n"}, "AZW MINI S"),
        ({"sys_vendor": "Intel\n", "product_name": "Intel NUC\n"}, "Intel NUC"),
        ({"product_name": "MINI S\n", "proc/cpuinfo": "model name\t: Intel(R) N100\n"}, "MINI S"),
        (
            {"product_name": "To Be Filled By O.E.M.\n", "proc/cpuinfo": "model name\t: Intel(R) N100\n"},
            "Intel(R) N100",
        ),
    ],
)
def test_a_machine_without_a_device_tree_has_a_model_from_what_there_is(files, model, write, tmp_path):
    for name, text in files.items():
        write(name if "/" in name else f"sys/class/dmi/id/{name}", text)
    assert read_device(tmp_path).model == model


@pytest.mark.parametrize("model", ["Pi\t4", "Pi\x1b[31m 4", "Pi\n4", "Pi " * 100])
def test_a_name_that_cannot_be_shown_on_one_line_is_none(model, write, tmp_path):
    write("proc/device-tree/model", model)
    assert read_device(tmp_path).model is None


def test_a_board_whose_device_tree_names_only_itself_has_no_soc(write, tmp_path):
    write("proc/device-tree/compatible", "linux,dummy-virt\0")
    assert read_device(tmp_path).soc is None


def assert_says_nothing(root):
    device, state, moment = read_device(root), read_state(root), read_moment(root)
    assert (device.model, device.soc, device.ram_bytes, device.os) == (None, None, None, None)
    assert state == BoardState(utc=state.utc)
    assert [value for name, value in vars(moment).items() if name not in ("monotonic_s", "own_cpu_s")] == [None] * 8
    assert (hottest_c(root), read_rails(root)) == (None, ())


def test_every_file_is_optional(tmp_path):
    assert_says_nothing(tmp_path)
    assert_says_nothing(tmp_path / "nowhere")


def spoil(path, content):
    path.unlink()
    if content is None:
        path.mkdir()
        return
    path.write_bytes(content)
    path.chmod(0o755)


def copied(board, tmp_path):
    return Path(shutil.copytree(BOARDS / board, tmp_path / board))


def board_names():
    return sorted(path.name for path in BOARDS.iterdir() if path.is_dir())


@pytest.mark.parametrize(
    "content", [GARBAGE["nothing"], GARBAGE["no UTF-8"], None], ids=["empty", "no UTF-8", "folder"]
)
@pytest.mark.parametrize("board", board_names())
def test_a_board_of_unreadable_files_says_nothing(board, content, tmp_path):
    root = copied(board, tmp_path)
    for path in [path for path in root.rglob("*") if path.is_file()]:
        spoil(path, content)
    assert_says_nothing(root)


@pytest.mark.parametrize("content", GARBAGE.values(), ids=GARBAGE)
@pytest.mark.parametrize("board", board_names())
def test_garbage_gives_no_number_and_no_exception(board, content, tmp_path):
    root = copied(board, tmp_path)
    for path in [path for path in root.rglob("*") if path.is_file()]:
        spoil(path, content)
    state, moment = read_state(root), read_moment(root)
    assert (state.temperatures_c, state.clocks_mhz, state.max_clock_mhz, state.rails_w) == ((), (), None, ())
    assert (state.load_1min, state.swap_used_bytes, state.power_mode) == (None, None, None)
    assert (moment.busy_s, moment.swapped_pages, moment.throttle_bits) == (None, None, None)
    assert read_device(root).ram_bytes is None
    assert encode(to_json(state)) and encode(to_json(read_device(root)))


def pieces():
    return [(board, path) for board in ("pi_5", "jetson_nano", "jetson_orin_nano") for path in files_of(board)]


def files_of(board):
    return sorted(str(path.relative_to(BOARDS / board)) for path in (BOARDS / board).rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def whole():
    return {board: read_state(BOARDS / board) for board in board_names()}


@pytest.mark.parametrize(("board", "name"), pieces())
def test_one_spoilt_file_costs_no_more_than_its_own_reading(board, name, whole, tmp_path):
    root = copied(board, tmp_path)
    for content in (GARBAGE["nothing"], GARBAGE["words"], GARBAGE["no UTF-8"], None):
        spoil(root / name, content)
        state = read_state(root)
        assert read_device(root).cores == os.cpu_count()
        assert ZONE in name or state.temperatures_c[0] == whole[board].temperatures_c[0]
        assert POLICY in name or state.max_clock_mhz == whole[board].max_clock_mhz


@pytest.mark.parametrize("temperature", ["-256000", "-274000", "200000", "4", "1e3", "47.2"])
def test_a_temperature_that_no_board_has_is_left_out(temperature, write, tmp_path):
    write(ZONE + "type", "tj-thermal\n")
    write(ZONE + "temp", f"{temperature}\n")
    assert hottest_c(tmp_path) == (0.004 if temperature == "4" else None)


def test_a_zone_that_answers_to_try_again_is_left_out(write, tmp_path):
    write("sys/class/thermal/thermal_zone1/type", "tj-thermal\n")
    write("sys/class/thermal/thermal_zone1/temp", "50250\n")
    write(ZONE + "type", "cv0-thermal\n")
    os.mkfifo(tmp_path / ZONE / "temp")
    # A FIFO that is open for writing and has nothing in it: reading it fails with EAGAIN.
    descriptor = os.open(tmp_path / ZONE / "temp", os.O_RDWR)
    try:
        assert [zone.name for zone in read_state(tmp_path).temperatures_c] == ["tj-thermal"]
    finally:
        os.close(descriptor)


def test_zone_10_comes_after_zone_9(write, tmp_path):
    for i in (10, 9, 1):
        write(f"sys/class/thermal/thermal_zone{i}/temp", f"{i}000\n")
    assert [zone.name for zone in read_state(tmp_path).temperatures_c] == [f"thermal_zone{i}" for i in (1, 9, 10)]


def test_cores_that_are_offline_have_no_clock(write, tmp_path):
    write(POLICY + "affected_cpus", "0 3\n")
    write(POLICY + "scaling_cur_freq", "600000\n")
    write("sys/devices/system/cpu/cpufreq/policy4/affected_cpus", "\n")
    assert [clock.name for clock in read_state(tmp_path).clocks_mhz] == ["cpu0", "cpu3"]


def test_a_clock_of_unnamed_cores_has_the_name_of_its_policy(write, tmp_path):
    write(POLICY + "scaling_cur_freq", "600000\n")
    assert read_state(tmp_path).clocks_mhz == (Reading("policy0", 600.0),)


@pytest.mark.parametrize(
    ("status", "mode"), [("pmode:0001 fmode:quiet", "5W"), ("pmode:0003", "3"), ("fmode:quiet", None)]
)
def test_a_power_mode_without_a_name_is_its_number(status, mode, write, tmp_path):
    write("var/lib/nvpmodel/status", status)
    write("etc/nvpmodel.conf", "< POWER_MODEL ID=0 NAME=MAXN >\n< POWER_MODEL ID=1 NAME=5W >\n")
    assert read_state(tmp_path).power_mode == mode


def test_the_throttling_of_every_x86_core_counts(write, tmp_path):
    for core, count in enumerate(("3", "4", "not a number")):
        write(f"sys/devices/system/cpu/cpu{core}/thermal_throttle/core_throttle_count", f"{count}\n")
    assert read_moment(tmp_path).core_throttles == 7


def test_cpu_time_is_busy_time_with_what_a_hypervisor_takes_and_without_waiting(write, tmp_path):
    #                             user nice system idle iowait irq softirq steal guest guest_nice
    write("proc/stat", "cpu  100 20 30 4000 500 6 7 8 50 5\ncpu0 1 1 1 1 1 1 1 1 1 1\n")
    write("proc/vmstat", "nr_free_pages 5\npswpin 40\npswpout 2\n")
    moment, per_second = read_moment(tmp_path), os.sysconf("SC_CLK_TCK")
    assert moment.busy_s == pytest.approx((100 + 20 + 30 + 6 + 7 + 8) / per_second)
    assert moment.stolen_s == pytest.approx(8 / per_second)
    assert moment.swapped_pages == 42


def test_a_container_that_shows_zeros_for_cpu_times_says_nothing_of_them(write, tmp_path):
    write("proc/stat", "cpu  0 0 0 0 0 0 0 0 0 0\n")
    assert read_moment(tmp_path).busy_s is None


def vcgencmd(write, script):
    write("usr/bin/vcgencmd", f"#!/bin/sh\n{script}\n").chmod(0o755)


@pytest.mark.parametrize(
    ("file", "script", "bits"),
    [
        ("0\n", "echo throttled=0xe0008", 0xE0008),
        (None, "echo throttled=0xe0008", 0xE0008),
        ("50005\n", "echo 'VCHI initialization failed'", 0x50005),
        ("50005\n", "exit 1", 0x50005),
        ("nonsense\n", "exit 1", None),
        (None, "echo 'VCHI initialization failed'", None),
        (None, "echo throttled=0x0; exit 1", None),
    ],
)
def test_the_file_that_lags_behind_is_read_only_where_the_firmware_does_not_answer(file, script, bits, write, tmp_path):
    vcgencmd(write, script)
    if file:
        write(THROTTLED, file)
    assert read_moment(tmp_path).throttle_bits == bits


def test_a_vcgencmd_that_may_not_be_run_is_not_run(write, tmp_path):
    write("usr/bin/vcgencmd", "#!/bin/sh\necho throttled=0x0\n").chmod(0o644)
    assert read_moment(tmp_path).throttle_bits is None


def test_a_vcgencmd_that_hangs_is_not_waited_for(write, tmp_path):
    vcgencmd(write, "sleep 60")
    begin = time.monotonic()
    assert ask_vcgencmd(tmp_path, "get_throttled", patience_s=0.2) is None
    assert time.monotonic() - begin < 10


def test_sensors_need_nothing_but_the_standard_library():
    program = "import device_agent.sensors, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout.split()
    assert "device_agent.sensors" in loaded
    assert not {"numpy", "asyncio", "logging", "pipeline"} & set(loaded)
