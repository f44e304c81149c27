"""What a run on several devices leaves behind beside each one's record: a ``FleetRecord``, stored as ``fleet.json``."""

from __future__ import annotations

from dataclasses import dataclass

FLEET_SCHEMA = 1


@dataclass(frozen=True)
class DeviceFailure:
    """Why there is no record of a device.

    ``kind`` is "unreachable", "refused" (by its host key, or because it accepts none of ours), "full", "leased",
    "interrupted" (from here, or because its time was over), "agent" or "host".
    """

    kind: str
    message: str


@dataclass(frozen=True)
class DeviceOutcome:
    """What came of one device: a record of its own in ``folder``, or a ``failure``.

    ``asked`` is the SHA-256 of all that was asked of it; ``taken_over`` tells that the run that was resumed had it.
    ``chosen`` is what may ship on this device, of ``variants`` variants of which ``valid`` are VALID.
    """

    device: str
    failure: DeviceFailure | None = None
    folder: str = ""
    asked: str = ""
    taken_over: bool = False
    variants: int = 0
    valid: int = 0
    chosen: str | None = None

    @property
    def done(self) -> bool:
        """Whether the device was measured: then there is no need to do that again."""
        return self.failure is None and self.valid > 0


@dataclass(frozen=True)
class FleetVerdict:
    """Which variant may ship on all devices that were measured; ``ships_on`` names for each variant where it may."""

    chosen: str | None
    reason: str
    ships_on: dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class FleetRecord:
    """One run of one experiment on several devices.

    ``resumed`` is the run that it took devices over from, empty for none; ``interrupted`` tells that Ctrl-C ended it
    before all devices were done.
    """

    run_id: str
    experiment: str
    experiment_file: str
    started_utc: str
    finished_utc: str
    metric: str
    baseline: str
    devices: tuple[DeviceOutcome, ...]
    verdict: FleetVerdict
    host: dict[str, str]
    resumed: str = ""
    interrupted: bool = False
    schema: int = FLEET_SCHEMA
