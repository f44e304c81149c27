import json
import socket
import threading

import pytest

from device_agent import __version__, blobs, protocol


def test_the_first_line_is_the_hello(agent, host):
    assert host.hello.protocol == protocol.PROTOCOL_VERSION
    assert host.hello.agent_version == __version__
    assert host.hello.home == str(agent.home)
    assert host.hello.free_bytes > 0
    assert host.hello.device.cores >= 1


def test_the_hello_names_every_runtime_and_why_one_cannot_be_used(host):
    runtimes = {runtime.name: runtime for runtime in host.hello.runtimes}
    assert list(runtimes) == ["litert", "null", "tflite_runtime"]
    assert runtimes["null"].version == "1"
    assert runtimes["litert"].problem == "/bin/false: ended with 1"


def test_status_lists_the_jobs(agent, host):
    assert host.call("status") == {
        "home": str(agent.home),
        "free_bytes": pytest.approx(host.hello.free_bytes, rel=0.2),
        "lease": None,
        "jobs": [],
    }
    job_id = host.submit(agent.spec(agent.null_model()))
    assert [job["job_id"] for job in host.call("status")["jobs"]] == [job_id]


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        (b"{nonsense\n", protocol.PARSE_ERROR, "not ASCII JSON"),
        (b"\xff\n", protocol.PARSE_ERROR, "not ASCII JSON"),
        (b"[" * 100_000 + b"\n", protocol.PARSE_ERROR, "not ASCII JSON"),
        (b"[]\n", protocol.PARSE_ERROR, "message is a JSON list; expected an object"),
        (b"{}\n", protocol.INVALID_REQUEST, '"jsonrpc": "2.0"'),
        (b'{"jsonrpc":"2.0","id":1}\n', protocol.INVALID_REQUEST, "method is missing"),
        (b'{"jsonrpc":"2.0","method":"status"}\n', protocol.INVALID_REQUEST, "id is missing"),
        (
            b'{"jsonrpc":"2.0","id":1,"method":"eval"}\n',
            protocol.METHOD_NOT_FOUND,
            'unknown method "eval"; known: stat',
        ),
        (b'{"jsonrpc":"2.0","id":1,"method":"status","params":[]}\n', protocol.INVALID_PARAMS, "expected an object"),
        (b'{"jsonrpc":"2.0","id":1,"method":"job.result"}\n', protocol.INVALID_PARAMS, "job_id is missing"),
        (
            b'{"jsonrpc":"2.0","method":"status","id":"' + b"x" * 1001 + b'"}\n',
            protocol.INVALID_REQUEST,
            "id has 1001 characters; at most 1000 are allowed",
        ),
        (b"x" * (protocol.MAX_MESSAGE_BYTES * 3) + b"\n", protocol.INVALID_REQUEST, "more than 1048576 bytes"),
    ],
    ids=lambda value: str(value[:40]) if isinstance(value, bytes) else None,
)
def test_a_malformed_message_is_an_error_and_the_connection_goes_on(shared_host, line, code, message):
    error = shared_host.send(line)["error"]
    assert error["code"] == code
    assert message in error["message"]
    assert shared_host.call("status")["jobs"] == []


@pytest.mark.parametrize(
    ("method", "params", "message"),
    [
        ("blob.missing", {"sha256": ["../../etc/passwd"]}, "expected 64 lower-case hexadecimal digits"),
        ("blob.missing", {"sha256": "a"}, "expected a list"),
        ("blob.missing", {"sha256": ["a" * 64] * 5001}, "number of hashes is 5001; expected 0 to 5000"),
        ("blob.commit", {"sha256": "a" * 64, "size_bytes": -1}, "size_bytes is -1"),
        ("blob.commit", {"sha256": "a" * 64, "size_bytes": True}, "expected int"),
        ("job.result", {"job_id": "../x"}, "expected 16 lower-case hexadecimal digits"),
        ("job.follow", {"job_id": "a" * 16, "after": "1"}, "expected int"),
        ("job.submit", {"spec": {"name": "x"}}, "spec.models is missing"),
        ("lease.acquire", {"holder": "a\x1b", "ttl_s": 1}, r"holder is 'a\\x1b'; expected 1 to 200 printable"),
        ("lease.acquire", {"holder": "", "ttl_s": 1}, "holder is ''; expected 1 to 200 printable"),
        ("lease.acquire", {"holder": "a", "ttl_s": 0.5}, "ttl_s is 0.5; expected 1 to 3600"),
        ("lease.acquire", {"holder": "a", "ttl_s": 3601}, "ttl_s is 3601"),
    ],
)
def test_parameters_of_another_form_are_refused_by_name(shared_host, rpc_error, method, params, message):
    with rpc_error(protocol.INVALID_PARAMS, message):
        shared_host.call(method, **params)


def test_a_number_too_large_for_a_float_is_refused(agent, host, rpc_error):
    submission = host.submission(agent.spec(agent.null_model()))
    submission["spec"]["limits"]["wall_s"] = 10**4000
    with rpc_error(protocol.INVALID_PARAMS, "wall_s is 1000.*expected float"):
        host.call("job.submit", **submission)


@pytest.mark.parametrize("method", ["job.result", "job.follow", "job.acknowledge", "job.cancel"])
def test_an_unknown_job_is_refused(shared_host, rpc_error, method):
    with rpc_error(protocol.UNKNOWN_JOB, "no job aaaaaaaaaaaaaaaa here; submit it"):
        shared_host.call(method, job_id="a" * 16)


def test_a_job_with_a_blob_that_was_not_sent_is_refused(agent, host, rpc_error):
    spec = agent.spec(protocol.ModelSpec("model", "b" * 64, "null"))
    with rpc_error(protocol.BLOB_MISSING, f"not here yet: {'b' * 64}; send"):
        host.submit(spec)


def test_a_job_whose_result_would_not_fit_is_refused(agent, host, rpc_error):
    spec = agent.spec(agent.null_model(), measure=protocol.MeasureSpec(processes=700))
    assert host.call("job.submit", **host.submission(spec))["state"] == "queued"
    model = agent.null_model()
    models = [protocol.ModelSpec(f"m{number}", model.sha256, "null") for number in range(3)]
    with rpc_error(protocol.INVALID_PARAMS, "3 models in 1000 processes each, sustained for 0 s; at most 800"):
        host.submit(agent.spec(*models, measure=protocol.MeasureSpec(processes=1000)))


def test_a_host_that_leaves_in_the_middle_of_a_line_disturbs_nobody(agent, host):
    leaving = agent.host()
    leaving.socket.sendall(b'{"jsonrpc":"2.0","id"')
    leaving.close()
    assert host.call("status")["jobs"] == []


def test_the_last_request_is_answered_although_the_host_will_send_no_more(agent):
    host = agent.host()
    host.ask("status")
    host.socket.shutdown(socket.SHUT_WR)
    assert host.read()["result"]["jobs"] == []
    assert host.stream.readline() == b""


def test_a_bug_is_an_internal_error_with_its_traceback_in_the_log(agent, host, rpc_error):
    result = host.measure(agent.spec(agent.null_model()))
    (agent.home / "jobs" / result.job_id / "result.json").write_text("[]")
    with rpc_error(protocol.INTERNAL_ERROR, "ProtocolError; the agent's log has the traceback"):
        host.call("job.result", job_id=result.job_id)
    assert "Traceback" in agent.log()
    assert host.call("status")["jobs"]


def test_hosts_are_served_side_by_side(agent, host):
    model = agent.null_model(fault="hang")
    job_id = host.submit(agent.spec(model))
    follower = agent.host()
    events = follower.events(job_id)
    assert next(events)["stage"] == "start"
    rest = []
    thread = threading.Thread(target=lambda: rest.extend(events))
    thread.start()
    assert host.call("job.cancel", job_id=job_id) == {"state": "cancelled"}
    thread.join(10)
    assert rest[-1] == "cancelled"


def test_a_message_is_one_line_of_ascii():
    line = protocol.encode({"text": "ü\n"})
    assert line.isascii()
    assert line.count(b"\n") == 1
    assert json.loads(line) == {"text": "ü\n"}


def test_a_blob_store_makes_nothing_when_it_is_constructed(tmp_path):
    blobs.BlobStore(tmp_path / "home", quota_bytes=1)
    assert not (tmp_path / "home").exists()
