import hashlib
from pathlib import Path

from device_agent import protocol


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
