"""Thermal zones."""

from __future__ import annotations

from pathlib import Path

from device_agent.protocol import Reading
from device_agent.sensors.files import matching, read_integer, read_name

# On older Jetsons the zone of the PMIC is a constant, 50 or 100 degrees: no such board would ever count as cool.
_CONSTANT_ZONES = ("PMIC-Die",)
# A Jetson says -256 of a part that is switched off.
_LOWEST_C, _HIGHEST_C = -50.0, 150.0


def read_temperatures(root: Path = Path("/")) -> tuple[Reading, ...]:
    """Return the thermal zones below ``root`` by their type, in degrees Celsius, without those that do not measure."""
    zones = (_zone(folder) for folder in matching(root, "sys/class/thermal/thermal_zone*"))
    return tuple(zone for zone in zones if zone)


def hottest_c(root: Path = Path("/")) -> float | None:
    """Return the temperature of the hottest zone in degrees Celsius; None when no zone says."""
    return max((zone.value for zone in read_temperatures(root)), default=None)


def _zone(folder: Path) -> Reading | None:
    name = read_name(folder / "type") or folder.name
    millidegrees = None if name in _CONSTANT_ZONES else read_integer(folder / "temp")
    if millidegrees is None or not _LOWEST_C <= millidegrees / 1000 <= _HIGHEST_C:
        return None
    return Reading(name, millidegrees / 1000)
