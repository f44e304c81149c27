from device_agent.sensors import read_device


def test_a_board_says_what_it_is(tmp_path):
    for name, text in {
        "proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.4\0",
        "proc/meminfo": "MemTotal:        3884276 kB\nMemFree: 1 kB\n",
        "etc/os-release": 'NAME="Debian"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    device = read_device(tmp_path)
    assert device.model == "Raspberry Pi 4 Model B Rev 1.4"
    assert device.ram_bytes == 3884276 * 1024
    assert device.os == "Debian GNU/Linux 12 (bookworm)"
    assert device.cores >= 1


def test_a_machine_without_a_device_tree_is_named_after_its_processor(tmp_path):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Intel(R) N100\n")
    assert read_device(tmp_path).model == "Intel(R) N100"


def test_every_file_is_optional(tmp_path):
    device = read_device(tmp_path)
    assert (device.model, device.ram_bytes, device.os) == (None, None, None)
