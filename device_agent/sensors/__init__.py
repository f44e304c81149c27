"""What the board says of itself and of its state; every file is optional, and the root folder is an argument.

A file that is missing, unreadable or empty, or whose content makes no sense, gives None or nothing: boards differ in
what they tell, and a job must not fail because of a sensor.
"""

from __future__ import annotations

from device_agent.sensors.conditions import conditions_between
from device_agent.sensors.device import read_device
from device_agent.sensors.moment import Moment, read_moment
from device_agent.sensors.rails import read_rails, total_w
from device_agent.sensors.state import read_device_state, read_state
from device_agent.sensors.temperatures import hottest_c, read_temperatures

__all__ = [
    "Moment",
    "conditions_between",
    "hottest_c",
    "read_device",
    "read_device_state",
    "read_moment",
    "read_rails",
    "read_state",
    "read_temperatures",
    "total_w",
]
