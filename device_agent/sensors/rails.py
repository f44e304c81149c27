"""Power rails: the INA3221 monitors of Jetsons and the PMIC of the Raspberry Pi 5."""

from __future__ import annotations

import re
from pathlib import Path

from device_agent.protocol import Reading
from device_agent.sensors.files import as_decimal, matching, read_integer, read_name
from device_agent.sensors.vcgencmd import ask_vcgencmd

# Rails that feed all the others of their board.
_INPUTS = ("VDD_IN", "POM_5V_IN")
_ADC_LINE = re.compile(r"\s*(\w+)_[AV] (current|volt)\([0-9]+\)=([0-9.]+)[AV]\s*", re.ASCII)


def read_rails(root: Path = Path("/")) -> tuple[Reading, ...]:
    """Return the power of each rail in W.

    Of a Jetson these are a few reads of its monitors, of a Raspberry Pi 5 one start of vcgencmd: a few milliseconds
    either way, cheap enough for 10 Hz between invokes and too much within one. What a Raspberry Pi 5 feeds into USB
    devices is in none of its rails.
    """
    return _hwmon_rails(root) or _iio_rails(root) or _pmic_rails(root)


def total_w(rails: tuple[Reading, ...]) -> float | None:
    """Return the power of the whole board in W: of the rail that feeds the others, or else the sum; None of nothing."""
    inputs = [rail.value for rail in rails if rail.name in _INPUTS]
    return sum(inputs or [rail.value for rail in rails]) if rails else None


def _hwmon_rails(root: Path) -> tuple[Reading, ...]:
    # Documentation/hwmon/ina3221.rst: in mV and mA. Labels above 3 name a sum of shunt voltages, no rail.
    rails = []
    for label in matching(root, "sys/bus/i2c/drivers/ina3221/*/hwmon/hwmon*/in[123]_label"):
        name, channel = read_name(label), label.name[2]
        millivolts = read_integer(label.with_name(f"in{channel}_input"))
        milliamperes = read_integer(label.with_name(f"curr{channel}_input"))
        if name and millivolts is not None and milliamperes is not None:
            rails.append(Reading(name, millivolts * milliamperes / 1e6))
    return tuple(rails)


def _iio_rails(root: Path) -> tuple[Reading, ...]:
    # JetPack 4 and before; in mW.
    rails = []
    for label in matching(root, "sys/bus/i2c/drivers/ina3221x/*/iio*/rail_name_[0-9]"):
        name, milliwatts = read_name(label), read_integer(label.with_name(f"in_power{label.name[-1]}_input"))
        if name and milliwatts is not None:
            rails.append(Reading(name, milliwatts / 1000))
    return tuple(rails)


def _pmic_rails(root: Path) -> tuple[Reading, ...]:
    amperes: dict[str, float] = {}
    volts: dict[str, float] = {}
    for line in (ask_vcgencmd(root, "pmic_read_adc") or "").splitlines():
        found = _ADC_LINE.fullmatch(line)
        value = as_decimal(found[3]) if found else None
        if found and value is not None:
            (amperes if found[2] == "current" else volts)[found[1]] = value
    # EXT5V and BATT have a voltage only: their power is unknown.
    return tuple(Reading(name, value * volts[name]) for name, value in amperes.items() if name in volts)
