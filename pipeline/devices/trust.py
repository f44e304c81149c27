"""Taking over host keys, one human decision each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.devices.host_keys import is_known, refuse_changed_key, trust
from pipeline.devices.inventory import Device
from pipeline.devices.ssh_config import ssh_target
from pipeline.devices.ssh_connection import fetch_host_key
from pipeline.errors import UsageError


@dataclass(frozen=True)
class ShownKey:
    """A host key that nobody has compared yet."""

    title: str
    key_type: str
    fingerprint: str


def trust_device(device: Device, confirm: Callable[[ShownKey], None], replace: bool) -> int:
    """Take over the key of ``device``, and of every host on the way to it, where it is not known yet.

    Args:
        device: one that is reached by SSH.
        confirm: called with each key; raises to refuse it.
        replace: whether keys that have changed may be taken over too.

    Returns:
        How many keys were taken over.

    Raises:
        DeviceError: if a host cannot be reached, or its key has changed and ``replace`` is False.
    """
    if device.transport != "ssh":
        raise UsageError(f'device "{device.name}" is this machine; there is no host key to trust')
    taken = 0
    for target in ssh_target(device).hops:
        key = fetch_host_key(target)
        if is_known(target, key):
            continue
        if not replace:
            refuse_changed_key(target, key)
        confirm(ShownKey(target.title, key.get_name(), key.fingerprint))
        trust(target, key, replace)
        taken += 1
    return taken
