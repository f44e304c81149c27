"""What a board and its agent say of themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from device_agent.checks import check_range


@dataclass(frozen=True)
class DeviceInfo:
    """What the board says of itself; None where it does not say.

    On an ``emulated`` one, instructions are carried out by a program: answers are right, times are not times.
    """

    model: Optional[str]
    machine: str
    cores: int
    ram_bytes: Optional[int]
    os: Optional[str]
    kernel: str
    python: str
    soc: Optional[str] = None
    emulated: bool = False


@dataclass(frozen=True)
class Reading:
    """One value that the board tells: a thermal zone in degrees Celsius, a core's clock in MHz, a power rail in W."""

    name: str
    value: float


@dataclass(frozen=True)
class BoardState:
    """The board at one moment; empty or None where it does not say.

    ``throttled_now`` and ``throttled_since_boot`` name what the firmware reports: "under-voltage", "frequency capped",
    "throttled", "soft temperature limit".
    """

    utc: str
    temperatures_c: tuple[Reading, ...] = ()
    clocks_mhz: tuple[Reading, ...] = ()
    max_clock_mhz: Optional[float] = None
    governors: tuple[str, ...] = ()
    throttled_now: tuple[str, ...] = ()
    throttled_since_boot: tuple[str, ...] = ()
    power_mode: Optional[str] = None
    rails_w: tuple[Reading, ...] = ()
    load_1min: Optional[float] = None
    swap_used_bytes: Optional[int] = None


@dataclass(frozen=True)
class BusyProcess:
    """A process, how many cores it keeps busy, and the unit of the system's that it belongs to, if it does to one."""

    pid: int
    name: str
    cpus: float
    unit: Optional[str] = None

    def __post_init__(self) -> None:
        check_range("pid", self.pid, 1, 1 << 22)
        check_range("cpus", self.cpus, 0, 1 << 20)


@dataclass(frozen=True)
class DeviceState:
    """The board as it is just now: its state, and how many cores others than the agent keep busy.

    ``swap_bytes`` is the room in swap space, used or not; ``utc_s`` the board's own clock in seconds since 1970;
    ``busiest`` None where the agent may not see what others run; ``tells_throttling`` whether the board has firmware
    that tells of it.
    """

    state: BoardState
    utc_s: float
    other_cpus: Optional[float] = None
    swap_bytes: Optional[int] = None
    busiest: Optional[BusyProcess] = None
    tells_throttling: bool = False

    def __post_init__(self) -> None:
        check_range("utc_s", self.utc_s, 0, 1 << 40)
        check_range("other_cpus", self.other_cpus or 0, 0, 1 << 20)
        for value in (self.swap_bytes, self.state.swap_used_bytes):
            check_range("swap", value or 0, 0, 1 << 60)
        for zone in self.state.temperatures_c:
            check_range("temperature", zone.value, -300, 1000)


@dataclass(frozen=True)
class Lease:
    """Who has the device: ``expires_in_s`` is None while a job of the holder's keeps it."""

    holder: str
    since_utc: str
    expires_in_s: Optional[float] = None


@dataclass(frozen=True)
class RuntimeInfo:
    """One runtime of the agent: its version, or why it cannot be used."""

    name: str
    version: Optional[str]
    problem: Optional[str] = None


@dataclass(frozen=True)
class Hello:
    """The agent's first words; ``release`` is the id of the one that it runs from, None when it was not provisioned."""

    protocol: int
    agent_version: str
    home: str
    free_bytes: int
    device: DeviceInfo
    runtimes: tuple[RuntimeInfo, ...]
    release: Optional[str] = None
