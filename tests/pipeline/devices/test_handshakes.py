"""Many connections side by side: few at once, and fewer with one server."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from boards import device_on
from ssh_server import SSHD, SshServer

from pipeline.devices.handshakes import Handshakes
from pipeline.devices.ssh import SshTransport
from pipeline.devices.ssh_config import ssh_target


class Counted:
    """Counts who is inside at the same time."""

    def __init__(self) -> None:
        self.most = self.now = 0
        self._lock = threading.Lock()

    def __enter__(self):
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)

    def __exit__(self, *_):
        with self._lock:
            self.now -= 1


@pytest.mark.parametrize(
    ("bounds", "servers", "most"),
    [({"at_once": 10, "with_one_server": 2}, 1, 2), ({"at_once": 3, "with_one_server": 2}, 6, 3)],
    ids=["with one server", "in all"],
)
def test_as_many_as_allowed_connect_at_once_and_no_more(bounds, servers, most):
    handshakes, inside = Handshakes(**bounds), Counted()
    together = threading.Barrier(most)

    def connect(number):
        with handshakes.with_server("host", number % servers), handshakes.turn(), inside:
            together.wait(30)

    with ThreadPoolExecutor(6) as executor:
        list(executor.map(connect, range(6)))
    assert inside.most == most


@pytest.mark.sshd
def test_a_server_that_takes_few_newcomers_at_once_takes_many_one_after_another(tmp_path, keys, home):
    if not SSHD:
        pytest.skip("no OpenSSH server is installed")
    server = SshServer(tmp_path / "sshd", [keys["host_a"]], keys["user"])
    server.max_startups = "4:100:4"  # the fifth that has not logged in yet is hung up on
    with server:
        (home / ".ssh" / "known_hosts").write_text(server.known_hosts_line)
        target, handshakes = ssh_target(device_on(server)), Handshakes(with_one_server=2)
        transports = [SshTransport(target, ("echo", "here"), handshakes) for _ in range(12)]
        with ThreadPoolExecutor(12) as executor:
            lines = list(executor.map(lambda transport: transport.open_stream().read_line(30), transports))
        assert lines == [b"here\n"] * 12
        for transport in transports:
            transport.close()
