"""The emulated board as a device: an ordinary SSH device of the user's inventory, its host key known from the start."""

from __future__ import annotations

import base64
from pathlib import Path

import paramiko

from device_agent.protocol import ConditionSpec
from pipeline.devices.host_keys import trust
from pipeline.devices.inventory import Device, add_device, device_files, remove_device, users_folder
from pipeline.devices.ssh_config import ssh_target
from pipeline.emulated_board import guest
from pipeline.emulated_board.keys import Keys

NAME = "emulated-pi"
HOST = "127.0.0.1"
# How slow it is, and that others work meanwhile, disturbs nothing: no time of it is reported.
_CONDITIONS = ConditionSpec(max_temperature_c=None, max_other_cpus=None, retries=0)
_CONNECT_TIMEOUT_S = 60.0


def device_at(port: int, keys: Keys) -> Device:
    """Return the board behind ``port`` as a device."""
    return Device(
        NAME,
        "ssh",
        host=HOST,
        port=port,
        user=guest.USER,
        identity_file=keys.user,
        tags=("emulated",),
        connect_timeout_s=_CONNECT_TIMEOUT_S,
        conditions=_CONDITIONS,
        emulated=True,
    )


def register(device: Device, keys: Keys, anew: bool) -> Path:
    """Write the device's file, and its host key, which we have made, into edgepress's own list; return the file.

    What others have written into the file stays, unless the board is ``anew``.

    Raises:
        UsageError: if a device of this name is in a project's folder too, and so hides the user's.
        StorageError: if a file cannot be written.
    """
    if anew and device.name in device_files():
        remove_device(device.name)
    file = device_files().get(device.name) or add_device(device, users_folder())
    kind, content = keys.host_key.split()
    key = paramiko.PKey.from_type_string(kind, base64.b64decode(content))
    trust(ssh_target(device), key, replace=True)
    return file
