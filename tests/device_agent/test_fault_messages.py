"""Ten thousand messages that no host would send: each is answered, and nothing outside the agent's home is touched."""

import itertools
import json
import os
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from device_agent.protocol import (
    BLOB_MISSING,
    INTERNAL_ERROR,
    INVALID_PARAMS,
    INVALID_REQUEST,
    MAX_MESSAGE_BYTES,
    METHOD_NOT_FOUND,
    PARSE_ERROR,
    UNKNOWN_JOB,
    ModelSpec,
)

pytestmark = pytest.mark.usefixtures("untraced")

# Each another.
FEWEST_MESSAGES = 10_000
# How deep the messages come: some are refused by the last check, and some changes leave a job to run.
REFUSALS = {PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS, UNKNOWN_JOB, BLOB_MISSING}
MESSAGES_AT_ONCE = 10
ABSENT_JOB, ABSENT_SHA256 = "0123456789abcdef", "ab" * 32
MOST_GROWTH_KIB = 4096

STRINGS = st.sampled_from(
    [
        *("", ".", "..", "../../victim", "../home/../victim", "/etc/passwd", "victim\0", "~/victim", "$HOME", "`id`"),
        *(
            f"{ABSENT_SHA256}/../victim",
            f"{ABSENT_SHA256}\n",
            f"../{ABSENT_JOB}",
            f"{ABSENT_JOB}\n",
            "é" * 16,
            "\ud800",
        ),
        *(
            "\uff10" * 16,
            "\u0660" * 64,
            "\x1b[2J",
            "%s%n",
            "x" * 300,
            "__class__",
            "__import__",
            "null",
            "litert",
            "top1",
        ),
    ]
)
NUMBERS = st.sampled_from(
    [0, -1, 1, 2, True, 1 << 31, 1 << 63, 1 << 64, -(1 << 63), 10**4000, 1e308, -0.0, 1e-320, float("nan"),
     float("inf"), -float("inf")]
)  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | STRINGS | st.text(max_size=8) | st.integers() | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(STRINGS, inner, max_size=3),
    max_leaves=5,
)


def places(value, here=()):
    """Yield the way to every value inside ``value``."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*here, key)
        yield from places(inner, (*here, key))


def without(request: dict, place: tuple, *instead) -> dict:
    """Return a copy that has ``instead`` at ``place``, or nothing."""
    changed = json.loads(json.dumps(request))
    target = changed
    for key in place[:-1]:
        target = target[key]
    if instead:
        target[place[-1]] = instead[0]
    else:
        del target[place[-1]]
    return changed


def as_line(message, ensure_ascii: bool = True) -> bytes:
    return json.dumps(message, ensure_ascii=ensure_ascii).encode("utf-8", "surrogatepass")


def one_line(content: bytes) -> bytes:
    return content.replace(b"\n", b" ") + b"\n"


def with_every_key_twice(request: dict) -> bytes:
    line = as_line(request)
    return b"{" + line[1:-1] + b"," + line[1:]


def hostile(requests: list[dict]) -> st.SearchStrategy[bytes]:
    """Return lines: bytes at random, JSON of any form, and requests that are all right but for one thing."""
    request = st.sampled_from(requests)
    mutated = request.flatmap(
        lambda request: st.builds(without, st.just(request), st.sampled_from(list(places(request))), VALUES)
    )
    shortened = request.flatmap(
        lambda request: st.builds(without, st.just(request), st.sampled_from(list(places(request))))
    )
    torn = st.builds(lambda request, end: as_line(request)[:end], request, st.integers(0, 700))
    return st.one_of(
        st.binary(max_size=60),
        VALUES.map(as_line),
        st.builds(as_line, mutated, st.booleans()),
        st.builds(as_line, mutated, st.booleans()),
        shortened.map(as_line),
        torn,
        mutated.map(with_every_key_twice),
    ).map(one_line)


def forms(line: bytes) -> list[bytes]:
    """Return a line, its first half, and what is left of it when one byte is another, or missing, at three places."""
    found = [line, line[: len(line) // 2]]
    for place in ((sum(line) * factor) % len(line) for factor in (1, 3, 7)):
        before, after = line[:place], line[place + 1 :]
        found += [before + b"%c" % (line[place] ^ 1) + after, before + after]
    return [line, *map(one_line, found[1:])]


def long_lines() -> list[bytes]:
    """Return lines up to and above what is allowed, and nesting as deep as the parser goes."""
    lines = []
    for size, fill in itertools.product((-1, 0, 1, MAX_MESSAGE_BYTES), (b"x", b" ", b"1", b"[", b'"', b"\xff", b"{")):
        lines.append(fill * (MAX_MESSAGE_BYTES + size - 1) + b"\n")
        for begin, end in (
            (b'{"jsonrpc":"2.0","id":"', b'","method":"no"}\n'),
            (b'{"jsonrpc":"2.0","method":"', b'","id":1}\n'),
        ):
            lines.append(begin + fill * (MAX_MESSAGE_BYTES + size - len(begin) - len(end)) + end)
    places = (b'"id":1,"params":%s', b'"id":1,"params":{"spec":%s}', b'"id":%s')
    for depth, place in itertools.product(range(900, 1010), places):
        nested = place % (b"[" * depth + b"]" * depth)
        lines.append(b'{"jsonrpc":"2.0","method":"job.submit",' + nested + b"}\n")
    many = [f"{number:064x}" for number in range(15_000)]
    lines.append(as_line({"jsonrpc": "2.0", "id": 1, "method": "blob.missing", "params": {"sha256": many}}) + b"\n")
    return lines


class Sender:
    """Sends what it is given and sees that all is answered, as a refusal or as a request."""

    def __init__(self, agent) -> None:
        self.sent = set()
        self.outcomes = Counter()
        self._agent = agent
        self._host = agent.host()

    def send(self, line: bytes) -> None:
        assert line.count(b"\n") == 1
        self.sent.add(line)
        answer = self._host.send(line)
        while "method" in answer:
            answer = self._host.read()
        assert ("result" in answer) != ("error" in answer)
        if "error" in answer:
            assert answer["error"]["code"] != INTERNAL_ERROR, (line[:200], self._agent.log()[-2000:])
            self.outcomes[answer["error"]["code"]] += 1
        elif "job_id" in answer["result"] and answer["result"]["state"] != "unknown":
            self._forget(answer["result"]["job_id"])

    def check(self) -> None:
        assert self._host.call("status")["jobs"] == []

    def _forget(self, job_id: str) -> None:
        # What was changed has left the request a good one.
        self.outcomes["job"] += 1
        self._host.call("job.cancel", job_id=job_id)
        self._host.call("job.acknowledge", job_id=job_id)


@pytest.fixture
def tree(tmp_path) -> Path:
    """Folders around the agent's home with files that are not its own."""
    for name in ("user", "temporary", "work", "home/jobs", "home/blobs"):
        (tmp_path / "tree" / name).mkdir(parents=True)
    for name in ("victim", "user/victim", "temporary/victim", "work/victim", f"{ABSENT_JOB}", f"{ABSENT_SHA256}"):
        (tmp_path / "tree" / name).write_text("not yours")
    return tmp_path / "tree"


@pytest.fixture
def agent(make_agent, tree):
    places = {"HOME": str(tree / "user"), "TMPDIR": str(tree / "temporary"), "XDG_DATA_HOME": str(tree / "user")}
    return make_agent(tree / "home", environment={**os.environ, **places}, cwd=tree / "work")


def listing(tree: Path) -> dict[str, tuple[int, int, int]]:
    """Return inode, size and time of all outside the home, but for the log that the test itself directs there."""
    found = {}
    for path in [tree, *tree.rglob("*")]:
        if (tree / "home") not in (path, *path.parents) and path != tree / "home.log":
            stat = path.stat()
            found[str(path)] = (stat.st_ino, stat.st_size if path.is_file() else 0, stat.st_mtime_ns)
    return found


def resident_kib(agent) -> int:
    return int(Path(f"/proc/{agent.process.pid}/status").read_text().split("VmRSS:")[1].split()[0])


def good_requests(agent, host) -> list[dict]:
    spec = agent.spec(agent.null_model("a"), ModelSpec("b", agent.null_model().sha256, "null"), baseline="a")
    job = {"job_id": ABSENT_JOB}
    params = {
        "status": {},
        "blob.missing": {"sha256": [ABSENT_SHA256, ABSENT_SHA256]},
        "blob.commit": {"sha256": ABSENT_SHA256, "size_bytes": 3},
        "job.find": {"spec": host.submission(spec)["spec"]},
        "job.submit": host.submission(spec),
        "job.follow": {**job, "after": 0},
        **dict.fromkeys(("job.result", "job.acknowledge", "job.cancel"), job),
        **{method: {"token": "a" * 32} for method in ("lease.renew", "lease.release")},
    }
    return [{"jsonrpc": "2.0", "id": 1, "method": method, "params": value} for method, value in params.items()]


def test_ten_thousand_hostile_messages_are_answered_and_touch_nothing(agent, tree):
    requests, sender = good_requests(agent, agent.host()), Sender(agent)
    before, blobs_before = listing(tree), sorted(path.name for path in (tree / "home" / "blobs").iterdir())
    for line in long_lines():
        sender.send(line)
    sender.check()
    send_hostile(requests, sender, FEWEST_MESSAGES // 10)
    resident_before_kib = resident_kib(agent)
    send_hostile(requests, sender, FEWEST_MESSAGES)
    assert len(sender.sent) >= FEWEST_MESSAGES
    assert set(sender.outcomes) >= REFUSALS | {"job"}
    assert agent.process.poll() is None
    assert resident_kib(agent) - resident_before_kib <= MOST_GROWTH_KIB
    assert listing(tree) == before
    assert sorted(path.name for path in (tree / "home" / "blobs").iterdir()) == blobs_before
    assert list((tree / "home" / "jobs").iterdir()) == []


def send_hostile(requests: list[dict], sender: Sender, fewest: int) -> None:
    enough = len(sender.sent) + fewest
    while len(sender.sent) < enough:
        send_round(requests, sender, number=len(sender.sent))


def send_round(requests: list[dict], sender: Sender, number: int) -> None:
    """Send the messages that belong to a number, the same at every run."""

    @seed(number)
    @settings(max_examples=50, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(hostile(requests), min_size=MESSAGES_AT_ONCE, max_size=MESSAGES_AT_ONCE))
    def send(lines):
        for line in lines:
            for form in forms(line):
                sender.send(form)
        sender.check()

    send()
