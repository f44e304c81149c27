"""The folder of a run: written under a temporary name and renamed, so that there is no half a run."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from pipeline.cache import Cache
from pipeline.device_run import DeviceRun
from pipeline.measuring import MeasuredJob
from pipeline.reporting import write_device_reports, write_fleet_reports, write_reports
from pipeline.results.fleet_store import DEVICES_FOLDER, FleetRun
from pipeline.results.record import RunRecord, VariantRecord


def new_run_id(name: str) -> str:
    """Return the id of a new run of the experiment ``name``: it sorts by time."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    return f"{stamp}-{name}-{secrets.token_hex(2)}"


def write_run(run: DeviceRun, output: Path) -> tuple[RunRecord, Path]:
    """Write the folder of a run on one device; return its record as written, and the folder.

    Raises:
        StorageError: if the disk is full or refuses.
    """
    record = _with_paths(run.record, "models")
    with _folder(output, record.run_id) as part:
        _copy_models(run.record.variants, part / "models")
        _copy_samples(run.job, part)
        write_reports(record, part)
    return record, output / record.run_id


def write_fleet(
    fleet: FleetRun,
    variants: Iterable[VariantRecord],
    jobs: Mapping[str, MeasuredJob],
    earlier: Path | None,
    output: Path,
) -> Path:
    """Write the folder of a run on several devices and return it.

    Args:
        fleet: the records, those that were taken over among them.
        variants: as they were built, with where their files are.
        jobs: the raw samples of those that were measured now, by device.
        earlier: the folder of the run from which the others were taken over.
        output: the folder of runs.

    Raises:
        StorageError: if the disk is full or refuses.
    """
    run_id = fleet.record.run_id
    with _folder(output, run_id) as part:
        _copy_models(variants, part / "models")
        for outcome in fleet.record.devices:
            if outcome.taken_over and earlier is not None:
                shutil.copytree(earlier / outcome.folder, part / outcome.folder)
            elif outcome.folder:
                (part / outcome.folder).mkdir(parents=True)
                _copy_samples(jobs.get(outcome.device), part / outcome.folder)
                write_device_reports(fleet.runs[outcome.device], part / outcome.folder)
        write_fleet_reports(fleet, part)
    return output / run_id


def device_folder(name: str) -> str:
    """Return where a device's part lies in the folder of a run on several."""
    return f"{DEVICES_FOLDER}/{name}"


def below_device(record: RunRecord) -> RunRecord:
    """Return the record as it stands in a device's folder: the models are beside all devices, once."""
    return _with_paths(record, "../../models")


@contextmanager
def _folder(output: Path, run_id: str) -> Iterator[Path]:
    part = Cache(output).subfolder("") / f".part-{run_id}"
    try:
        with Cache(output).writing(output / run_id):
            part.mkdir(parents=True)
            yield part
            part.rename(output / run_id)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _copy_models(variants: Iterable[VariantRecord], folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for variant in variants:
        if variant.artifact is not None:
            shutil.copyfile(variant.artifact.path, folder / f"{variant.name}.tflite")


def _copy_samples(job: MeasuredJob | None, folder: Path) -> None:
    if job is not None:
        shutil.copytree(job.folder, folder / "samples", ignore=shutil.ignore_patterns("result.json"))


def _with_paths(record: RunRecord, folder: str) -> RunRecord:
    """Return the record with the paths of its flatbuffers below ``folder``."""
    variants = (
        replace(variant, artifact=replace(variant.artifact, path=f"{folder}/{variant.name}.tflite"))
        if variant.artifact
        else variant
        for variant in record.variants
    )
    return replace(record, variants=tuple(variants))
