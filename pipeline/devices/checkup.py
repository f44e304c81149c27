"""Whether a board can be measured well: what speaks against it just now, each with the command that mends it."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass

import device_agent
from device_agent.protocol import METHOD_NOT_FOUND, BusyProcess, ConditionSpec, DeviceState, Hello
from pipeline.agent_client import AgentClient
from pipeline.devices.agent_stream import printable
from pipeline.devices.inventory import Device
from pipeline.errors import AgentError

LEAST_FREE_BYTES = 512 << 20
MOST_CLOCK_APART_S = 5.0
LEAST_CPUS = 0.1
_PERFORMANCE = ("performance",)
# What needs no quoting in a shell, into which the command goes.
_UNIT = re.compile(r"[A-Za-z0-9_.@:-]{1,200}\.service")

_MEND_GOVERNOR = "echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"
_MEND_JETSON = "sudo nvpmodel -m 0 && sudo jetson_clocks"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: ``is_well`` is None where the board does not tell, or it does not matter here.

    ``command`` mends it on the board; empty where there is nothing to mend.
    """

    what: str
    is_well: bool | None
    text: str
    command: str = ""


@dataclass(frozen=True)
class Checkup:
    """A board, what was found, and who has it; without ``findings`` when a look would disturb a measurement."""

    hello: Hello
    findings: tuple[Finding, ...]
    leased_to: str | None = None


def check_up(device: Device, client: AgentClient) -> Checkup:
    """Ask the agent of ``device`` how the board is.

    Raises:
        DeviceError: if it cannot be reached.
    """
    hello, status = client.hello, client.status()
    if status.lease:
        return Checkup(hello, tuple(_of_agent(hello, device)), printable(status.lease.holder))
    before_s = time.time()
    try:
        state = client.device_state()
    except AgentError as error:
        if error.code != METHOD_NOT_FOUND:
            raise
        too_old = Finding("versions", False, "this agent cannot tell how the board is", _provision(device))
        return Checkup(hello, (*_of_agent(hello, device), too_old))
    # The board's own clock is read at the end of the second that it looks on.
    apart_s = _apart(state.utc_s, before_s, time.time())
    return Checkup(hello, (*_of_state(state, device.conditions, apart_s), *_of_agent(hello, device)))


def _apart(there_s: float, before_s: float, after_s: float) -> float:
    """Return how far a clock that was read between two moments is from ours, at the least; below 0 when it is slow."""
    return min(0.0, there_s - before_s) or max(0.0, there_s - after_s)


def _of_state(state: DeviceState, conditions: ConditionSpec, apart_s: float) -> Iterator[Finding]:
    yield _governor(state)
    yield from _power_mode(state)
    yield _throttling(state)
    yield _temperature(state, conditions)
    yield _swap(state)
    yield _load(state, conditions)
    yield _clock(state, apart_s)


def _untold(what: str) -> Finding:
    return Finding(what, None, "the board does not tell")


def _governor(state: DeviceState) -> Finding:
    governors = tuple(map(printable, state.state.governors))
    if not governors:
        return Finding("governor", None, "the board does not tell; its clock is fixed, or a hypervisor's affair")
    if governors == _PERFORMANCE:
        return Finding("governor", True, "performance")
    return Finding("governor", False, f"{', '.join(governors)}: the clock moves with the load", _MEND_GOVERNOR)


def _power_mode(state: DeviceState) -> Iterator[Finding]:
    mode = state.state.power_mode
    if mode is None:
        return
    is_most = mode.upper().startswith("MAXN")
    yield Finding("power mode", is_most, printable(mode), "" if is_most else _MEND_JETSON)


def _throttling(state: DeviceState) -> Finding:
    now, earlier = state.state.throttled_now, state.state.throttled_since_boot
    if now:
        text = f"{_needs(now)}; it is over when the last digit is 0"
        return Finding("throttling", False, text, "watch vcgencmd get_throttled")
    if earlier:
        return Finding("throttling", False, f"none now; since boot: {_needs(earlier)}, then a reboot", "sudo reboot")
    return Finding("throttling", True, "none") if state.tells_throttling else _untold("throttling")


def _needs(faults: tuple[str, ...]) -> str:
    # The clock is capped for want of power as well: that comes first.
    remedy = "a stronger power supply, or a shorter cable" if "under-voltage" in faults else "a fan or a heat sink"
    return f"{', '.join(map(printable, faults))}: it needs {remedy}"


def _temperature(state: DeviceState, conditions: ConditionSpec) -> Finding:
    zones = state.state.temperatures_c
    if not zones:
        return _untold("temperature")
    hottest = max(zones, key=lambda zone: zone.value)
    text, most = f"{hottest.value:.1f} C ({printable(hottest.name)})", conditions.max_temperature_c
    if most is None or hottest.value <= most - conditions.cooldown_c:
        return Finding("temperature", True, text)
    if hottest.value <= most:
        return Finding("temperature", None, f"{text}, close to the {most:g} C above which no block counts")
    return Finding(
        "temperature", False, f"{text}; no block counts above {most:g} C: it needs to cool, or a fan", "sleep 300"
    )


def _swap(state: DeviceState) -> Finding:
    used, room = state.state.swap_used_bytes, state.swap_bytes
    if used is None or room is None:
        return _untold("swap")
    if not room:
        return Finding("swap", True, "none")
    if used:
        text = f"{used / 2**20:.0f} MiB of it are in use; a block that swaps does not count"
        return Finding("swap", False, text, "sudo swapoff -a && sudo swapon -a")
    text = f"{room / 2**20:.0f} MiB, not in use; a block that swaps does not count"
    return Finding("swap", None, text, "sudo swapoff -a")


def _load(state: DeviceState, conditions: ConditionSpec) -> Finding:
    others, most = state.other_cpus, conditions.max_other_cpus
    if others is None:
        return _untold("other load")
    text = f"others keep {others:.2f} cores busy"
    if most is None or others <= most:
        return Finding("other load", True, text)
    text += f"; at most {most:g} is allowed beside a block"
    busiest = state.busiest
    # A fenced-in agent sees its own user's processes alone, none of which need be to blame.
    if busiest is None or busiest.cpus < LEAST_CPUS:
        return Finding("other load", False, f"{text}: end what keeps it busy", "top")
    return Finding("other load", False, f"{text}; most of all {printable(busiest.name)}", _end(busiest))


def _end(process: BusyProcess) -> str:
    """Return the command that ends a process; systemd would start that of a unit again."""
    is_unit = process.unit is not None and _UNIT.fullmatch(process.unit)
    return f"sudo systemctl stop {process.unit}" if is_unit else f"sudo kill {process.pid}"


def _clock(state: DeviceState, apart_s: float) -> Finding:
    if abs(apart_s) <= MOST_CLOCK_APART_S:
        return Finding("clock", True, f"within {MOST_CLOCK_APART_S:g} s of this host's")
    where = "ahead of" if apart_s > 0 else "behind"
    return Finding("clock", False, f"{abs(apart_s):.0f} s {where} this host's", "sudo timedatectl set-ntp true")


def _provision(device: Device) -> str:
    return f"edgepress device provision {device.name}" if device.transport == "ssh" else ""


def _of_agent(hello: Hello, device: Device) -> Iterator[Finding]:
    provision = _provision(device)
    free = f"{hello.free_bytes / 2**20:,.0f} MiB free in {printable(hello.home)}"
    has_room = hello.free_bytes >= LEAST_FREE_BYTES
    yield Finding("disk", has_room, free, "" if has_room else "sudo apt-get clean && df -h")
    # "null" is a stand-in that runs no flatbuffers.
    usable = [f"{found.name} {found.version}" for found in hello.runtimes if found.version and found.name != "null"]
    yield Finding("runtimes", bool(usable), printable(", ".join(usable) or "none"), "" if usable else provision)
    is_ours = hello.agent_version == device_agent.__version__
    ours = "" if is_ours else f"; this host has {device_agent.__version__}"
    yield Finding("versions", is_ours, f"agent {printable(hello.agent_version)}{ours}", "" if is_ours else provision)
