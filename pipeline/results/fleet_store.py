"""A run on several devices on disk: ``fleet.json``, and each device's own record in its folder."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.results.fleet_record import FLEET_SCHEMA, FleetRecord
from pipeline.results.record import RunRecord
from pipeline.results.store import REPORT_JSON, Migrations, read_as, read_record

FLEET_JSON = "fleet.json"
DEVICES_FOLDER = "devices"

_MIGRATIONS: Migrations = {}


@dataclass(frozen=True)
class FleetRun:
    """A run on several devices: its record, and the record of each device that was measured, by name."""

    record: FleetRecord
    runs: dict[str, RunRecord]


def fleet_json(record: FleetRecord) -> str:
    """Return ``record`` as indented JSON; each device also says ``done``, for readers such as ``jq``."""
    content = dataclasses.asdict(record)
    for outcome, written in zip(record.devices, content["devices"], strict=True):
        written["done"] = outcome.done
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def read_fleet(folder: Path) -> FleetRun:
    """Return the run on several devices in ``folder``.

    Raises:
        UsageError: if there is none, it is damaged, or its schema is a later one.
    """
    record = read_as(FleetRecord, folder / FLEET_JSON, FLEET_SCHEMA, _MIGRATIONS)
    for outcome in record.devices:
        if Path(outcome.folder).is_absolute() or ".." in Path(outcome.folder).parts:
            raise UsageError(f'{folder / FLEET_JSON}: folder is "{outcome.folder}"; expected one below the run\'s own')
    runs = {o.device: read_record(folder / o.folder / REPORT_JSON) for o in record.devices if o.folder}
    return FleetRun(record, runs)


def find_fleet(output: Path, run: str) -> Path:
    """Return the folder of the run on several devices that ``run`` names: by its id in ``output``, or by its path.

    Raises:
        UsageError: if there is none; the message lists those there are.
    """
    for folder in (output / run, Path(run)):
        if (folder / FLEET_JSON).is_file():
            return folder
        if (folder / REPORT_JSON).is_file():
            raise UsageError(f"{folder} is a run on one device: there is no rest to do; run the experiment again")
    known = sorted((path.parent.name for path in output.glob(f"*/{FLEET_JSON}")), reverse=True)
    listed = ", ".join(known[:5]) or "none"
    raise UsageError(f'unknown run "{run}"; runs on several devices in {output}: {listed}')
