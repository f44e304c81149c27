"""``device list``: every board asked side by side, and when it was last seen."""

import json
import os
from dataclasses import replace

import pytest
from agents import hello_line, write_agent, write_peer
from boards import AGENT, device_on

from pipeline.agent_client import AgentClient
from pipeline.devices.inventory import Device
from pipeline.devices.survey import last_seen, note_seen, survey
from pipeline.devices.transport import open_transport


@pytest.fixture
def here(tmp_path, agent_home):
    """A device with a real agent, which does not run yet."""
    return Device("here", "local", agent=str(write_agent(tmp_path)), home=str(agent_home))


def states(*devices: Device) -> list[str]:
    return [standing.state for standing in survey(devices)]


def test_a_device_whose_agent_does_not_run_is_up_and_its_agent_is_not_started(here, agent_home):
    assert states(here) == ["up, idle"]
    assert not agent_home.exists()


def test_a_device_whose_agent_runs_is_up_and_who_has_it_is_shown(here):
    with AgentClient(open_transport(here), "here") as client:
        client.acquire("ana@laptop, run x")
        [standing] = survey([here])
    assert standing.state == "up"
    assert standing.lease.startswith("ana@laptop, run x since 20")


def test_when_a_device_was_last_seen_is_kept_also_when_it_is_down(here, home):
    [seen] = survey([here])
    assert seen.seen_utc
    kept = home / ".local" / "state" / "edgepress" / "devices" / "here.json"
    assert json.loads(kept.read_text()) == {"seen_utc": seen.seen_utc}
    [gone] = survey([replace(here, agent="/no/such/agent")])
    assert (gone.state, gone.seen_utc) == ("down", seen.seen_utc)
    assert last_seen("elsewhere") == ""


def test_what_is_kept_may_be_damaged_or_not_be_writable(tmp_path):
    (tmp_path / "a.json").write_text("{")
    assert last_seen("a", tmp_path) == ""
    (tmp_path / "file").write_text("")
    note_seen("a", tmp_path / "file")


@pytest.mark.sshd
def test_each_reason_why_a_board_cannot_be_used_has_a_word_of_its_own(board, start_sshd, keys, tmp_path):
    gone = start_sshd("host_a")
    gone.stop()
    peer = write_peer(tmp_path, hello_line(protocol=1))
    found = states(
        board,
        replace(board, agent=str(peer)),
        device_on(start_sshd("host_b")),
        replace(board, identity_file=keys["stranger"]),
        replace(board, port=gone.port),
        replace(board, agent=str(AGENT), home=str(tmp_path / "fresh")),
    )
    assert found == ["agent missing", "agent too old or too new", "not trusted", "login refused", "down", "up, idle"]


@pytest.mark.sshd
@pytest.mark.skipif(os.getuid() != 0, reason="only root becomes another user without being asked")
def test_an_agent_of_another_user_s_that_does_not_run_is_told_to_be_stopped(board, tmp_path):
    stopped = replace(board, agent=str(AGENT), home=str(tmp_path / "fresh"), as_user="root")
    assert states(stopped) == ["agent stopped"]


def test_all_are_asked_side_by_side(tmp_path):
    """Each of them answers only once all have been asked."""
    (tmp_path / "asked").mkdir()
    waiting = tmp_path / "waiting"
    waiting.write_text(
        f"#!/bin/sh\ncd {tmp_path}/asked\n: >$$\nuntil [ $(ls | wc -l) = 16 ]; do sleep 0.05; done\nexit 1\n"
    )
    waiting.chmod(0o755)
    devices = [Device(f"d{number}", "local", agent=str(waiting)) for number in range(16)]
    assert states(*devices) == ["agent missing"] * 16
