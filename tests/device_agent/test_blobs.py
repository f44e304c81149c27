import hashlib
import json
import os
import time
from pathlib import Path

import pytest

from device_agent import blobs, protocol


def missing(host, *sha256):
    return host.call("blob.missing", sha256=sha256)["missing"]


def test_content_that_was_committed_is_not_missing_any_more(agent, host):
    content = b"a model"
    sha256 = hashlib.sha256(content).hexdigest()
    assert missing(host, sha256) == [
        {"sha256": sha256, "part_bytes": 0, "part_sha256": hashlib.sha256(b"").hexdigest()}
    ]
    agent.put_part(content)
    assert host.call("blob.commit", sha256=sha256, size_bytes=len(content)) == {}
    assert missing(host, sha256) == []
    assert agent.blob(sha256).read_bytes() == content


def test_what_has_arrived_of_a_blob_is_reported_with_its_hash(agent, host):
    sha256 = hashlib.sha256(b"a model").hexdigest()
    Path(protocol.part_path(str(agent.home), sha256)).write_bytes(b"a mo")
    [found] = missing(host, sha256)
    assert found == {"sha256": sha256, "part_bytes": 4, "part_sha256": hashlib.sha256(b"a mo").hexdigest()}


def test_a_blob_is_reported_once_however_often_it_is_asked_for(host):
    assert len(missing(host, "a" * 64, "b" * 64, "a" * 64)) == 2


def test_a_commit_of_what_is_here_already_does_nothing(agent, host):
    sha256 = agent.push(b"a model")
    assert host.call("blob.commit", sha256=sha256, size_bytes=7) == {}


def test_a_commit_of_nothing_is_refused(host, rpc_error):
    with rpc_error(protocol.BLOB_MISSING, "is not there; put the content there before blob.commit"):
        host.call("blob.commit", sha256="a" * 64, size_bytes=1)


def test_content_of_another_hash_is_refused_and_removed(agent, host, rpc_error):
    part = Path(protocol.part_path(str(agent.home), "a" * 64))
    part.write_bytes(b"something else")
    with rpc_error(protocol.BLOB_MISMATCH, "arrived with SHA-256 .*; it was removed, send it again"):
        host.call("blob.commit", sha256="a" * 64, size_bytes=14)
    assert not part.exists()
    assert not agent.blob("a" * 64).exists()


def test_content_of_another_size_is_refused_and_removed(agent, host, rpc_error):
    sha256 = agent.put_part(b"a model")
    with rpc_error(protocol.BLOB_MISMATCH, "arrived with 7 bytes; expected 8"):
        host.call("blob.commit", sha256=sha256, size_bytes=8)
    assert not Path(protocol.part_path(str(agent.home), sha256)).exists()


MIB = 1 << 20


def large(letter: str) -> bytes:
    return letter.encode() * (MIB * 2 // 5)


def here(agent) -> set[str]:
    return {path.name for path in (agent.home / "blobs").glob("[0-9a-f]*")}


@pytest.fixture
def small_store(make_agent):
    """An agent with room for two of the large blobs, and not for three."""
    return make_agent(options=("--quota-mib=1",))


def test_above_the_quota_what_was_not_used_for_the_longest_time_is_removed(small_store):
    a, b = small_store.push(large("a")), small_store.push(large("b"))
    c = small_store.push(large("c"))
    assert here(small_store) == {b, c}
    # To hand it in once more is a use as well.
    small_store.push(large("b"))
    d = small_store.push(large("d"))
    assert here(small_store) == {b, d}
    assert f"blob {a} of {len(large('a'))} bytes removed, to keep to the quota" in small_store.log()


def test_the_order_of_use_survives_a_restart(small_store):
    a, b = small_store.push(large("a")), small_store.push(large("b"))
    small_store.push(large("a"))
    small_store.kill()
    small_store.start()
    c = small_store.push(large("c"))
    assert b not in here(small_store)
    assert here(small_store) == {a, c}


def test_what_was_asked_about_lately_stays_although_the_store_is_above_its_quota(small_store):
    a, b = small_store.push(large("a")), small_store.push(large("b"))
    assert missing(small_store.host(), a) == []
    c = small_store.push(large("c"))
    d = small_store.push(large("d"))
    assert here(small_store) == {a, d}
    assert {b, c}.isdisjoint(here(small_store))


def test_what_a_job_needs_stays_until_the_job_is_finished(small_store):
    content = {"input_shape": [1, 4], "fault": "hang", "padding": "x" * (MIB // 2)}
    model = small_store.push(json.dumps(content).encode())
    job_id = small_store.host().submit(small_store.spec(protocol.ModelSpec("model", model, "null")))
    # A restart forgets who has asked about what, so that only the job itself is left to keep its blobs.
    small_store.kill()
    small_store.start()
    named = here(small_store)
    b, c = small_store.push(large("b")), small_store.push(large("c"))
    assert here(small_store) == {*named, c}
    assert small_store.host().call("job.cancel", job_id=job_id) == {"state": "cancelled"}
    d = small_store.push(large("d"))
    assert here(small_store) >= {c, d}
    assert {model, b}.isdisjoint(here(small_store))


def test_a_blob_larger_than_the_quota_is_refused_with_the_quota(small_store, rpc_error):
    content = bytes(MIB + 1)
    sha256 = small_store.put_part(content)
    with rpc_error(protocol.DISK_FULL, r"has 1048577 bytes, more than the quota of 1 MiB; start .* \"--quota-mib\""):
        small_store.host().call("blob.commit", sha256=sha256, size_bytes=len(content))
    assert list((small_store.home / "blobs").iterdir()) == []


def test_a_part_that_nobody_has_touched_for_a_day_goes_with_the_next_commit(small_store):
    parts = {age_h: small_store.put_part(f"{age_h} hours".encode()) for age_h in (23, 25)}
    for age_h, sha256 in parts.items():
        touched_s = time.time() - age_h * 3600
        os.utime(protocol.part_path(str(small_store.home), sha256), (touched_s, touched_s))
    small_store.push(b"something else")
    left = {path.name for path in (small_store.home / "blobs").glob(".part-*")}
    assert left == {f".part-{parts[23]}"}


def test_what_was_asked_about_under_the_lease_stays_as_long_as_the_lease(tmp_path, monkeypatch):
    monkeypatch.setattr(blobs, "_ASKED_FOR_S", 0.0)
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / ("a" * 64)).write_bytes(b"content")
    store = blobs.BlobStore(tmp_path, quota_bytes=1)
    assert store.missing(["a" * 64], "a lease") == []
    store.make_room(set(), "a lease")
    assert store.missing(["a" * 64], "a lease") == []
    store.make_room(set(), "the next lease")
    assert store.missing(["a" * 64], "the next lease") == ["a" * 64]
