"""What host and agent say to each other: framing, version, and the types that both sides share.

Messages are JSON-RPC 2.0, one per line, ASCII, at most ``MAX_MESSAGE_BYTES``. The agent speaks first: a ``hello``
notification whose params are a ``Hello``. File content never travels here: it goes by SFTP or by copying into the
places that ``part_path`` and ``job_file_path`` name.

Methods (params → result):

* ``status`` {} → ``{"home", "free_bytes", "lease": Lease or null, "jobs": [{"job_id", "name", "state", "holder"}]}``
* ``device.state`` {} → ``DeviceState``; it looks on for a second
* ``lease.acquire`` {"holder", "ttl_s", "wait", "token"} → ``{"token"}``; refused with LEASED while another holds the
  device, unless ``wait``: then the answer comes when it is free. A host that gives a token of its own may ask again
  when the answer was lost
* ``lease.renew`` {"token"} → ``{}``, the holder's heartbeat; ``lease.release`` {"token"} → ``{}``
* ``blob.missing`` {"sha256": [...]} → ``{"missing": [{"sha256", "part_bytes", "part_sha256"}]}``
* ``blob.commit`` {"sha256", "size_bytes"} → ``{}`` once the content is verified and in its place
* ``job.find`` {"spec": JobSpec} → ``{"job_id", "state"}``; the state is "unknown" when there is no such job
* ``job.submit`` {"spec": JobSpec, "token"} → ``{"job_id", "state"}``; the same spec is the same job
* ``job.follow`` {"job_id", "after"} → ``job.event`` notifications (JobEvent), then ``{"state"}``
* ``job.result`` {"job_id"} → ``JobResult``
* ``job.acknowledge`` {"job_id"} → ``{}``; the agent may forget the job
* ``job.cancel`` {"job_id"} → ``{"state"}``

``blob.missing`` and ``blob.commit`` may carry a "token" too: the lease does not expire while they are answered, and its
time to live then begins anew. A lease that is released while its job is not finished ends with the job.
"""

from __future__ import annotations

from device_agent.checks import (
    ProtocolError,
    check_file_name,
    check_identifier,
    check_job_id,
    check_range,
    check_sha256,
    shown,
)
from device_agent.protocol.device import (
    BoardState,
    BusyProcess,
    DeviceInfo,
    DeviceState,
    Hello,
    Lease,
    Reading,
    RuntimeInfo,
)
from device_agent.protocol.framing import MAX_MESSAGE_BYTES, decode, encode, from_json, to_json
from device_agent.protocol.paths import blob_path, job_file_path, part_path
from device_agent.protocol.results import (
    FINAL_STATES,
    JOB_STATES,
    BlockConditions,
    Delegation,
    Failure,
    JobEvent,
    JobFile,
    JobResult,
    Measurement,
    MemorySplit,
    OutputParity,
    Power,
    Profile,
    Score,
    Scored,
    Sustained,
    SustainedMinute,
    TimingBlock,
)
from device_agent.protocol.specs import DELEGATES, ConditionSpec, DataSpec, JobSpec, LimitSpec, MeasureSpec, ModelSpec

PROTOCOL_VERSION = 2

# JSON-RPC error codes: the first four are the standard's, the others are ours.
PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
BLOB_MISMATCH = 1
UNKNOWN_JOB = 2
DISK_FULL = 3
NOT_FINISHED = 4
BLOB_MISSING = 5
LEASED = 6
NOT_LEASED = 7

__all__ = [
    "BLOB_MISMATCH",
    "BLOB_MISSING",
    "DELEGATES",
    "DISK_FULL",
    "FINAL_STATES",
    "INTERNAL_ERROR",
    "INVALID_PARAMS",
    "INVALID_REQUEST",
    "JOB_STATES",
    "LEASED",
    "MAX_MESSAGE_BYTES",
    "METHOD_NOT_FOUND",
    "NOT_FINISHED",
    "NOT_LEASED",
    "PARSE_ERROR",
    "PROTOCOL_VERSION",
    "UNKNOWN_JOB",
    "BlockConditions",
    "BoardState",
    "BusyProcess",
    "ConditionSpec",
    "DataSpec",
    "Delegation",
    "DeviceInfo",
    "DeviceState",
    "Failure",
    "Hello",
    "JobEvent",
    "JobFile",
    "JobResult",
    "JobSpec",
    "Lease",
    "LimitSpec",
    "MeasureSpec",
    "Measurement",
    "MemorySplit",
    "ModelSpec",
    "OutputParity",
    "Power",
    "Profile",
    "ProtocolError",
    "Reading",
    "RuntimeInfo",
    "Score",
    "Scored",
    "Sustained",
    "SustainedMinute",
    "TimingBlock",
    "blob_path",
    "check_file_name",
    "check_identifier",
    "check_job_id",
    "check_range",
    "check_sha256",
    "decode",
    "encode",
    "from_json",
    "job_file_path",
    "part_path",
    "shown",
    "to_json",
]
