"""From a bare board to a running agent, as its user and as the system's, and back to bare; and what may go wrong."""

import time
from contextlib import contextmanager

import pytest
from board_experiments import write_fashion_mnist, write_subset
from emulated_pi import BOTH, PROVISION, changed_tree

pytestmark = [pytest.mark.board, pytest.mark.timeout(2 * 3600)]

SYSTEM_ROOT = "/opt/edgepress"
SYSTEM = (*PROVISION, "--system")
# Where a daemon begins to serve: one that gets no further does not start.
BEGINS = "    os.umask(0o077)\n"


def provision(pi, *words: str, **more) -> str:
    begin = time.monotonic()
    printed = pi.edgepress(*words, **more)
    pi.log(f"{' '.join(words)}: {time.monotonic() - begin:.0f} s")
    return printed


@pytest.fixture
def clean(bare):
    """A bare board, and what is on it."""
    bare.reset()
    return bare, bare.leftovers()


def cold_boot_s(pi) -> float:
    pi.edgepress("board", "down")
    return pi.up()


def test_as_its_user_from_bare_to_an_agent_that_answers_and_back(clean, tmp_path):
    pi, before = clean
    begin = time.monotonic()
    with only_the_rule_of_the_installation(pi):
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
    assert pi.leftovers() - before == set()


@pytest.mark.tensorflow
def test_from_bare_to_measured_is_told_as_the_ratio_to_a_plain_boot(clean, tmp_path):
    pi, _ = clean
    data = write_subset(tmp_path, scored=20, trained=2000)
    path = write_fashion_mnist(tmp_path, "litert", data, variants={"float32": []})
    begin = time.monotonic()
    provision(pi, *PROVISION)
    provisioned_s = time.monotonic() - begin
    printed = pi.edgepress("run", str(path), "--output", str(tmp_path / "runs"))
    measured_s = time.monotonic() - begin
    assert "float32 may ship" in printed
    boot_s = cold_boot_s(pi)
    pi.log(
        f"from bare to measured: {measured_s:.0f} s, {provisioned_s:.0f} s of them until it was provisioned; "
        f"{measured_s / boot_s:.1f} times a plain boot of {boot_s:.0f} s"
    )


@pytest.mark.tensorflow
def test_as_the_system_it_measures_and_has_a_user_of_its_own_that_nobody_else_can_read(clean, tmp_path):
    pi, before = clean
    provision(pi, *BOTH, "--system")
    data = write_subset(tmp_path, scored=20, trained=2000)
    path = write_fashion_mnist(tmp_path, "litert", data, variants={"float32": []})
    with only_the_rule_of_the_installation(pi):
        assert "float32 may ship" in pi.edgepress("run", str(path), "--output", str(tmp_path / "runs"))
        for words in (("id",), ("-u", "edgepress", "id")):
            assert pi.ssh("sudo", "-n", *words, ok=False) == "", words
        # By itself, without becoming the agent's user, it does not get to the agent.
        asked = (pi.agent, "status", "--home", pi.agent_home, ">/dev/null", "2>&1", ";", "echo", "$?")
        assert int(pi.ssh(*asked)) != 0
    assert pi.blobs()["blobs"] >= 3 and pi.blobs()["wrong"] == []
    assert pi.is_system
    pi.await_agent()
    unit = pi.ssh("systemctl", "show", "edgepress-agent", "-p", "User,NoNewPrivileges,ProtectSystem,MemoryMax,TasksMax")
    for line in ("User=edgepress", "NoNewPrivileges=yes", "ProtectSystem=strict"):
        assert line in unit.splitlines()
    assert "infinity" not in unit
    blobs = pi.ssh("sudo", "-n", "sh", "-c", "'cd /var/lib/edgepress && ls blobs/*'").split()
    assert blobs
    inside = ("agent.sock", "blobs", "jobs", *blobs)
    for path in ("/var/lib/edgepress", *(f"/var/lib/edgepress/{name}" for name in inside)):
        pi.ssh("sudo", "-n", "test", "-e", path)
        assert pi.ssh("cat", path, ok=False) == "" and pi.ssh("ls", path, ok=False) == "", path
    listening = pi.ssh("ss", "--listening", "--tcp", "--udp", "--no-header", "--numeric").splitlines()
    assert listening and all(":22 " in line for line in listening), listening
    cold_boot_s(pi)
    pi.await_agent()
    pi.edgepress("device", "unprovision", "emulated-pi")
    assert pi.leftovers() - before == set()


@contextmanager
def only_the_rule_of_the_installation(pi):
    """Take from the user all that sudo lets it do but what an installation has added; systemd is to give it back."""
    asked, kept, rule = "/home/pi/give-back", "/root/sudoers-pi", "/etc/sudoers.d/pi"
    pi.ssh("sudo", "-n", "cp", "-p", rule, kept)
    pi.ssh("sudo", "-n", "systemd-run", f"--path-property=PathExists={asked}", "mv", kept, rule)
    pi.ssh("sudo", "-n", "rm", rule)
    try:
        yield
    finally:
        pi.ssh("touch", asked)
        pi.ssh("timeout", "300", "sh", "-c", "'until sudo -n true; do sleep 0.5; done'")
        pi.ssh("rm", asked)


def test_an_upgrade_replaces_the_agent_and_keeps_the_one_before(clean, tmp_path):
    pi, _ = clean
    provision(pi, *PROVISION)
    first = pi.releases(pi.root)["current"]
    provision(pi, *PROVISION, tree=changed_tree(tmp_path / "next", "9.9.0"))
    found = pi.releases(pi.root)
    assert found["current"] != first
    assert set(found["releases"]) == {first, found["current"]}
    assert "9.9.0" in pi.edgepress("device", "check", "emulated-pi", tree=tmp_path / "next")


def test_as_the_system_it_is_upgraded_and_goes_back_from_one_that_does_not_start(clean, tmp_path):
    pi, before = clean
    provision(pi, *SYSTEM)
    first = pi.releases(SYSTEM_ROOT)["current"]
    provision(pi, *SYSTEM, tree=changed_tree(tmp_path / "next", "9.9.0"))
    upgraded = pi.releases(SYSTEM_ROOT)
    assert set(upgraded["releases"]) == {first, upgraded["current"]}
    unit = pi.ssh("cat", "/etc/systemd/system/edgepress-agent.service")
    printed = provision(pi, *SYSTEM, tree=broken_tree(tmp_path / "broken"), code=1)
    assert f"went back to release {upgraded['current']}" in " ".join(printed.split())
    pi.log(f"a release that does not start: {printed.strip().splitlines()[-1]}")
    assert pi.releases(SYSTEM_ROOT)["current"] == upgraded["current"]
    assert pi.ssh("cat", "/etc/systemd/system/edgepress-agent.service") == unit
    pi.await_agent()
    assert "9.9.0" in pi.edgepress("device", "check", "emulated-pi", tree=tmp_path / "next")
    pi.edgepress("device", "unprovision", "emulated-pi")
    assert pi.leftovers() - before == set()


def broken_tree(folder):
    """Return a copy of edgepress whose agent does not start, and whose unit says one thing more."""
    tree = changed_tree(folder, "9.9.1")
    daemon = tree / "device_agent" / "daemon.py"
    text = daemon.read_text()
    assert BEGINS in text
    daemon.write_text(text.replace(BEGINS, "    raise AgentError('it is broken')\n"))
    with (tree / "device_agent" / "units" / "edgepress-agent.service").open("a") as unit:
        unit.write("# of the broken one\n")
    return tree


@pytest.mark.parametrize("words", [PROVISION, SYSTEM], ids=["user", "system"])
def test_a_full_disk_is_told_before_the_agent_is_sent_and_with_room_it_is_provisioned(clean, words):
    pi, before = clean
    # Enough for the installer, and not for a release with its runtime, which takes several times that.
    pi.fill_disk(left_bytes=40 << 20)
    printed = provision(pi, *words, code=1)
    assert "emulated-pi has no room for the agent: " in " ".join(printed.split())
    pi.log(f"full disk: {printed.strip().splitlines()[-1]}")
    pi.empty_disk()
    provision(pi, *words)
    pi.edgepress("device", "unprovision", "emulated-pi")
    assert pi.leftovers() - before == set()


@pytest.mark.parametrize("stamp", ["1999-01-01 00:00:00", "2037-12-31 00:00:00"])
def test_a_wrong_clock_does_not_keep_a_board_from_being_provisioned_and_is_told(clean, stamp, monkeypatch):
    pi, _ = clean
    # So wide that no cell of the table is folded.
    monkeypatch.setenv("COLUMNS", "300")
    pi.ssh("sudo", "-n", "date", "--utc", f"--set='{stamp}'")
    provision(pi, *PROVISION)
    assert "sudo timedatectl set-ntp true" in pi.edgepress("device", "check", "emulated-pi")
    # With the clock set right, what is there has stamps of another time, which do not count.
    pi.ssh("sudo", "-n", "date", "--utc", f"--set=@{time.time():.0f}")
    assert "nothing changed: emulated-pi has release" in provision(pi, *PROVISION)
