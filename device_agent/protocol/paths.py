"""Where files lie on the device: the places that both sides compute."""

from __future__ import annotations

from device_agent.checks import check_file_name, check_job_id, check_sha256


def part_path(home: str, sha256: str) -> str:
    """Return where content is put before ``blob.commit``: on the file system of the store, under a name of its own."""
    return f"{home}/blobs/.part-{check_sha256('sha256', sha256)}"


def blob_path(home: str, sha256: str) -> str:
    """Return where verified content lies."""
    return f"{home}/blobs/{check_sha256('sha256', sha256)}"


def job_file_path(home: str, job_id: str, name: str) -> str:
    """Return where a job's file lies until the job is acknowledged."""
    return f"{home}/jobs/{check_job_id(job_id)}/files/{check_file_name('file name', name)}"
