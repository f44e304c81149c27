"""Several devices by name and by tag."""

import pytest

from pipeline.devices.groups import find_devices
from pipeline.devices.inventory import Device, add_device
from pipeline.errors import ConfigError, UsageError


@pytest.fixture
def lab(monkeypatch, tmp_path):
    monkeypatch.setenv("EDGEPRESS_DEVICES", str(tmp_path / "devices"))
    for name, tags in (("pi4-b", ("lab",)), ("pi4-a", ("lab", "hot")), ("jetson", ())):
        add_device(Device(name, "ssh", f"{name}.lan", tags=tags))
    return tmp_path / "devices"


def names(*asked: str) -> list[str]:
    return [device.name for device in find_devices(asked)]


def test_a_tag_stands_for_all_that_have_it_by_name(lab):
    assert names("tag:lab") == ["pi4-a", "pi4-b"]


def test_names_and_tags_are_taken_in_the_order_asked_and_each_device_once(lab):
    assert names("jetson", "pi4-b", "tag:lab", "jetson", "local") == ["jetson", "pi4-b", "pi4-a", "local"]


def test_an_unknown_tag_lists_those_that_there_are(lab):
    with pytest.raises(UsageError, match=r'^no device has the tag "labs"; known tags: hot, lab$'):
        find_devices(["tag:labs"])


def test_without_any_tags_the_message_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEPRESS_DEVICES", str(tmp_path))
    with pytest.raises(UsageError, match=r'^no device has the tag "lab"; known tags: none$'):
        find_devices(["tag:lab"])


def test_an_unknown_device_lists_those_that_there_are(lab):
    with pytest.raises(UsageError, match='unknown device "pi9"; known: jetson, local, pi4-a, pi4-b'):
        find_devices(["tag:lab", "pi9"])


def test_a_device_whose_file_is_wrong_is_told_with_its_tag_mates(lab):
    (lab / "pi4-a.yaml").write_text("host: pi4-a.lan\nport: 22a\n")
    with pytest.raises(ConfigError, match="port"):
        find_devices(["tag:lab"])


def test_two_names_of_one_address_are_refused_unless_their_agents_have_homes_of_their_own(lab):
    add_device(Device("other", "ssh", "jetson.lan"))
    with pytest.raises(UsageError, match=r'devices "jetson" and "other" have the same address and home'):
        find_devices(["jetson", "other"])
    add_device(Device("apart", "ssh", "jetson.lan", home="/srv/agent"))
    assert names("jetson", "apart") == ["jetson", "apart"]
