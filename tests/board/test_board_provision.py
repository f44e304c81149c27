"""From a bare board to a running agent, as its user and as the system's, and back to bare."""

import time

import pytest
from emulated_pi import BOTH, PROVISION, changed_tree

pytestmark = [pytest.mark.board, pytest.mark.timeout(2 * 3600)]

SYSTEM_ROOT = "/opt/edgepress"


def provision(pi, *words: str, **more) -> str:
    begin = time.monotonic()
    printed = pi.edgepress(*words, **more)
    pi.log(f"{' '.join(words)}: {time.monotonic() - begin:.0f} s")
    return printed


@pytest.fixture
def clean(bare):
    """A bare board, and what is on it."""
    bare.reset()
    return bare, bare.files()


def cold_boot_s(pi) -> float:
    pi.edgepress("board", "down")
    return pi.up()


def test_as_its_user_from_bare_to_an_agent_that_answers_and_back(clean, tmp_path):
    pi, before = clean
    begin = time.monotonic()
    provision(pi, *BOTH)
    ready_s = time.monotonic() - begin
    checked = pi.edgepress("device", "check", "emulated-pi")
    assert "litert 2." in checked and "tflite_runtime 2." in checked
    assert "emulated: no time is reported" in " ".join(checked.split())
    boot_s = cold_boot_s(pi)
    pi.log(f"from bare to an agent that answers: {ready_s:.0f} s, {ready_s / boot_s:.1f} times a plain boot")
    pi.await_agent()
    assert "nothing changed: emulated-pi has release" in provision(pi, *BOTH)
    pi.edgepress("device", "unprovision", "emulated-pi")
    assert pi.files() - before == set()


def test_as_the_system_the_agent_has_a_user_of_its_own_that_nobody_else_can_read(clean):
    pi, before = clean
    provision(pi, *BOTH, "--system")
    assert pi.is_system
    pi.await_agent()
    unit = pi.ssh("systemctl", "show", "edgepress-agent", "-p", "User,NoNewPrivileges,ProtectSystem,MemoryMax,TasksMax")
    for line in ("User=edgepress", "NoNewPrivileges=yes", "ProtectSystem=strict"):
        assert line in unit.splitlines()
    assert "infinity" not in unit
    for path in ("/var/lib/edgepress", "/var/lib/edgepress/agent.sock", "/var/lib/edgepress/blobs"):
        pi.ssh("sudo", "-n", "test", "-e", path)
        assert pi.ssh("cat", path, ok=False) == "" and pi.ssh("ls", path, ok=False) == "", path
    listening = pi.ssh("ss", "--listening", "--tcp", "--udp", "--no-header", "--numeric").splitlines()
    assert listening and all(":22 " in line for line in listening), listening
    cold_boot_s(pi)
    pi.await_agent()
    pi.edgepress("device", "unprovision", "emulated-pi")
    assert pi.files() - before == set()


def test_an_upgrade_replaces_the_agent_and_keeps_the_one_before(clean, tmp_path):
    pi, _ = clean
    provision(pi, *PROVISION)
    first = pi.releases(pi.root)["current"]
    provision(pi, *PROVISION, tree=changed_tree(tmp_path / "next", "9.9.0"))
    found = pi.releases(pi.root)
    assert found["current"] != first
    assert set(found["releases"]) == {first, found["current"]}
    assert "9.9.0" in pi.edgepress("device", "check", "emulated-pi", tree=tmp_path / "next")
