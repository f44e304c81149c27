"""Device files: what is read, what is refused, where they are written."""

import shutil
from pathlib import Path

import pytest

from pipeline.devices.inventory import LOCAL, Device, add_device, find_device, list_devices, remove_device
from pipeline.errors import ConfigError, StorageError, UsageError

KNOWN = (
    "transport, host, port, user, identity_file, agent, home, as_user, tags, connect_timeout_s, conditions, emulated"
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The one folder of device files."""
    path = tmp_path / "devices"
    path.mkdir()
    monkeypatch.setenv("EDGEPRESS_DEVICES", str(path))
    return path


def write(path: Path, text: str = "host: 10.0.0.4\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def mistakes(error: ConfigError) -> list[str]:
    return [f"{Path(m.file).name}:{m.line}: {m.message}" for m in error.mistakes]


def test_local_is_built_in():
    assert find_device("local") == LOCAL
    assert (LOCAL.name, LOCAL.transport, LOCAL.conditions.max_temperature_c) == ("local", "local", None)
    assert list_devices() == [LOCAL]


def test_an_unknown_device_lists_the_known(folder):
    write(folder / "pi4.yaml")
    write(folder / "nano.yaml", "no: yaml: [")
    with pytest.raises(UsageError, match=r'^unknown device "pi5"; known: local, nano, pi4$'):
        find_device("pi5")


def test_every_mistake_in_a_file_is_told_at_once_by_file_line_key_value_and_what_is_allowed(folder):
    text = (
        'transport: serial\nhost: 22\nport: "22a"\nuser: ""\nidentity_file: ""\nagent: a b\nhome: board\n'
        "tags: [Lab, 3]\nconnect_timeout_s: 0\ncolor: red\n1: x\n"
    )
    write(folder / "pi4.yaml", text)
    with pytest.raises(ConfigError) as caught:
        find_device("pi4")
    assert mistakes(caught.value) == [
        'pi4.yaml:1: transport is "serial"; expected one of ssh, local',
        "pi4.yaml:2: host is 22; expected text",
        'pi4.yaml:3: port is "22a"; expected an integer from 1 to 65535',
        'pi4.yaml:4: user is ""; expected a user\'s name',
        'pi4.yaml:5: identity_file is ""; expected the path of a private key',
        'pi4.yaml:6: agent is "a b"; expected the path of edgepress-agent on the device, without spaces',
        'pi4.yaml:7: home is "board"; expected an absolute path on the device',
        'pi4.yaml:8: tags[0] is "Lab"; expected lower-case letters, digits, _ and -',
        "pi4.yaml:8: tags[1] is 3; expected text",
        "pi4.yaml:9: connect_timeout_s is 0; expected a number from 0.1 to 600",
        f'pi4.yaml:10: unknown key "color"; known: {KNOWN}',
        "pi4.yaml:11: key 1 is no text; put it in quotes",
    ]


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("port: 1\n", '1: "host" is missing; expected a host name, an address, or a Host of ~/.ssh/config'),
        (
            "host: -oProxyCommand=x\n",
            '1: host is "-oProxyCommand=x"; expected a host name, an address, or a Host of ~/.ssh/config',
        ),
        ("host: a\nuser: -l\n", '2: user is "-l"; expected a user\'s name'),
        ("host: a\nport: 70000\n", "2: port is 70000; expected an integer from 1 to 65535"),
        ("host: a\nagent: --x\n", '2: agent is "--x"; expected the path of edgepress-agent on the device, without'),
        ("host: a\ntags:\n", "2: tags is empty; expected a list"),
        ("host: a\nhost: b\n", '2: not YAML: found duplicate key "host"'),
        ("host: [\n", "2: not YAML: "),
        ("", "1: the file holds nothing; expected a mapping of keys to values"),
    ],
)
def test_a_mistake_says_what_is_allowed(folder, text, mistake):
    write(folder / "pi4.yaml", text)
    with pytest.raises(ConfigError) as caught:
        find_device("pi4")
    (only,) = mistakes(caught.value)
    assert only.startswith(f"pi4.yaml:{mistake}")


def test_listing_tells_the_mistakes_of_all_files(folder):
    write(folder / "good.yaml")
    write(folder / "a.yaml", "host: a\nport: 0\n")
    write(folder / "b.yaml", "{}")
    write(folder / "Pi 4.yaml")
    with pytest.raises(ConfigError) as caught:
        list_devices()
    assert mistakes(caught.value) == [
        'Pi 4.yaml:None: file name is "Pi 4.yaml"; expected [a-z0-9][a-z0-9_-]*.yaml',
        "a.yaml:2: port is 0; expected an integer from 1 to 65535",
        'b.yaml:1: "host" is missing; expected a host name, an address, or a Host of ~/.ssh/config',
    ]


def test_what_is_added_is_found_again(folder, home):
    device = Device(
        "pi4", "ssh", "pi4.lan", 2222, "pi", home / "key", "~/bin/edgepress-agent", "/mnt/a b", ("lab",), 2.5
    )
    file = add_device(device)
    assert file == folder / "pi4.yaml"
    assert find_device("pi4") == device
    assert list(folder.iterdir()) == [file]


def test_a_file_says_only_what_is_not_the_default(folder):
    assert add_device(Device("pi4", "ssh", "pi4.lan")).read_text() == "transport: ssh\nhost: pi4.lan\n"


def test_the_home_of_an_identity_file_is_the_users(folder, home):
    write(folder / "pi4.yaml", "host: a\nidentity_file: ~/key\n")
    assert find_device("pi4").identity_file == home / "key"


def test_add_refuses_a_name_that_exists_and_keeps_its_file(folder):
    file = write(folder / "pi4.yaml")
    with pytest.raises(UsageError) as caught:
        add_device(Device("pi4", "ssh", "other"))
    remedy = 'run "edgepress device remove pi4" first, or edit that file'
    assert str(caught.value) == f'device "pi4" exists already in {file}; {remedy}'
    assert file.read_text() == "host: 10.0.0.4\n"


def test_add_refuses_the_name_that_is_built_in(folder):
    with pytest.raises(UsageError, match=r'^device "local" is built in; choose another name$'):
        add_device(Device("local", "ssh", "pi4.lan"))


@pytest.mark.parametrize("name", ["", "Pi4", "../pi4", "-pi", "a b", "p" * 64])
def test_add_refuses_a_bad_name(folder, name):
    with pytest.raises(UsageError, match=f'^device name is "{name}"; expected lower-case letters, digits, _ and -, 63'):
        add_device(Device(name, "ssh", "pi4.lan"))
    assert not list(folder.parent.rglob("*.yaml"))


def test_add_refuses_values_that_could_not_be_read_back_all_at_once(folder):
    with pytest.raises(UsageError) as caught:
        add_device(Device("pi4", "ssh", "", 0, home="board"))
    assert str(caught.value).splitlines() == [
        '"host" is missing; expected a host name, an address, or a Host of ~/.ssh/config',
        "port is 0; expected an integer from 1 to 65535",
        'home is "board"; expected an absolute path on the device',
    ]
    assert not list(folder.iterdir())


def test_a_folder_that_cannot_be_written_is_one_message(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEPRESS_DEVICES", str(write(tmp_path / "file")))
    with pytest.raises(StorageError, match=r"cannot write .*file/pi4\.yaml: File exists"):
        add_device(Device("pi4", "ssh", "pi4.lan"))


def test_remove_deletes_the_file(folder):
    file = write(folder / "pi4.yaml", "its: mistakes do not matter")
    assert remove_device("pi4") == file
    assert not file.exists()


def test_remove_refuses_what_has_no_file(folder):
    with pytest.raises(UsageError, match=r'^unknown device "pi4"; known: local$'):
        remove_device("pi4")
    with pytest.raises(UsageError, match=r'^device "local" is built in and has no file to remove$'):
        remove_device("local")


def test_the_projects_file_hides_its_namesake_of_the_user(home):
    write(home / ".config/edgepress/devices/pi4.yaml", "host: users\n")
    write(home / ".config/edgepress/devices/nano.yaml", "host: nano\n")
    write(Path("configs/devices/pi4.yaml"), "host: projects\n")
    assert [(d.name, d.host) for d in list_devices()] == [("local", ""), ("nano", "nano"), ("pi4", "projects")]


def test_a_new_file_goes_to_the_project_if_it_has_a_folder_and_else_to_the_user(home):
    device = Device("pi4", "ssh", "pi4.lan")
    assert add_device(device) == home / ".config/edgepress/devices/pi4.yaml"
    remove_device("pi4")
    Path("configs/devices").mkdir(parents=True)
    (home / ".config/edgepress/devices").rmdir()
    assert add_device(device) == Path("configs/devices/pi4.yaml")


def test_the_folder_of_the_environment_stands_for_all(home, tmp_path, monkeypatch):
    write(home / ".config/edgepress/devices/users.yaml")
    write(Path("configs/devices/projects.yaml"))
    write(tmp_path / "chosen/pi4.yaml")
    monkeypatch.setenv("EDGEPRESS_DEVICES", str(tmp_path / "chosen"))
    assert [device.name for device in list_devices()] == ["local", "pi4"]


EXAMPLES = Path(__file__).parents[3] / "configs" / "devices" / "examples"


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.yaml")), ids=lambda file: file.stem)
def test_an_example_of_a_device_file_loads_once_it_is_copied_into_the_inventory(file, tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEPRESS_DEVICES", str(tmp_path))
    shutil.copy(file, tmp_path)
    device = find_device(file.stem)
    assert device.transport == "ssh"
    assert file.stem in device.tags


def test_the_examples_are_no_devices_where_they_lie(monkeypatch):
    monkeypatch.setenv("EDGEPRESS_DEVICES", str(EXAMPLES.parent))
    assert [device.name for device in list_devices()] == ["local"]
