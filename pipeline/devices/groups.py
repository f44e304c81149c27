"""Several devices by one word: ``tag:lab`` stands for all that have the tag."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.devices.inventory import Device, find_device, list_devices
from pipeline.errors import UsageError

TAG = "tag:"


def find_devices(asked: Sequence[str]) -> tuple[Device, ...]:
    """Return the devices of these names and tags in the order asked, those of a tag by name, each once.

    Raises:
        UsageError: if a device or a tag is unknown, or two names lead to the same agent.
        ConfigError: with all mistakes in the devices' files.
    """
    found = [device for word in asked for device in _of(word)]
    devices = tuple({device.name: device for device in found}.values())
    _check_apart(devices)
    return devices


def _of(word: str) -> list[Device]:
    if not word.startswith(TAG):
        return [find_device(word)]
    tag, devices = word.removeprefix(TAG), list_devices()
    tagged = [device for device in devices if tag in device.tags]
    if not tagged:
        known = ", ".join(sorted({tag for device in devices for tag in device.tags})) or "none"
        raise UsageError(f'no device has the tag "{tag}"; known tags: {known}')
    return tagged


def _check_apart(devices: Sequence[Device]) -> None:
    """See that no board is there twice: it would wait for itself, and one job be taken for two."""
    names: dict[tuple[object, ...], str] = {}
    for device in devices:
        address = (device.transport, device.host, device.port, device.user, device.home)
        other = names.setdefault(address, device.name)
        if other != device.name:
            raise UsageError(f'devices "{other}" and "{device.name}" have the same address and home; name one of them')
