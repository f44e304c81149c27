"""What ``device check`` says of a board, and with which command it is mended."""

import json
import time
from dataclasses import replace

import pytest
from agents import HELLO, write_agent, write_peer

from device_agent.protocol import (
    BoardState,
    BusyProcess,
    ConditionSpec,
    DeviceState,
    Hello,
    Reading,
    from_json,
    to_json,
)
from pipeline.agent_client import AgentClient
from pipeline.devices.checkup import Finding, check_up
from pipeline.devices.inventory import Device
from pipeline.devices.transport import open_transport
from pipeline.errors import DeviceError

CALM = DeviceState(
    BoardState(
        utc="2026-11-24T10:00:00Z",
        temperatures_c=(Reading("cpu-thermal", 52.5),),
        governors=("performance",),
        swap_used_bytes=0,
    ),
    utc_s=0.0,
    other_cpus=0.02,
    swap_bytes=0,
    tells_throttling=True,
)


@pytest.fixture
def found(tmp_path):
    """A function that checks a board in a state, and returns what was found by what it is about."""

    def check(state: DeviceState = CALM, apart_s: float = 0.0, **hello) -> dict[str, Finding]:
        state = replace(state, utc_s=time.time() + apart_s)
        said = {**HELLO, "agent_version": "0.1.0", "home": "/home/pi/agent", **hello}
        status = {"home": "/home/pi/agent", "free_bytes": 1, "jobs": [], "lease": None}
        greeting = json.dumps({"jsonrpc": "2.0", "method": "hello", "params": said}) + "\n"
        peer = write_peer(tmp_path, greeting, status=status, device_state=to_json(state))
        board = Device("pi4", "local", agent=str(peer), conditions=ConditionSpec())
        with AgentClient(open_transport(board), "pi4") as client:
            checkup = check_up(replace(board, transport="ssh"), client)
        assert isinstance(checkup.hello, Hello)
        return {finding.what: finding for finding in checkup.findings}

    return check


def changed(**changes) -> DeviceState:
    return replace(CALM, state=replace(CALM.state, **changes))


def busy_by(process: BusyProcess) -> DeviceState:
    return replace(CALM, other_cpus=1.25, busiest=process)


def test_a_calm_board_has_nothing_to_mend(found):
    seen = found(runtimes=[{"name": "litert", "version": "2.3.0"}, {"name": "null", "version": "1"}])
    assert [finding for finding in seen.values() if finding.is_well is False] == []
    assert list(seen) == [
        "governor", "throttling", "temperature", "swap", "other load", "clock", "disk", "runtimes", "versions",
    ]  # fmt: skip
    assert seen["runtimes"].text == "litert 2.3.0"
    assert seen["temperature"].text == "52.5 C (cpu-thermal)"


@pytest.mark.parametrize(
    ("state", "what", "text", "command"),
    [
        (
            changed(governors=("ondemand",)),
            "governor",
            "ondemand: the clock moves with the load",
            "echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor",
        ),
        (changed(power_mode="5W"), "power mode", "5W", "sudo nvpmodel -m 0 && sudo jetson_clocks"),
        (
            changed(throttled_now=("under-voltage",)),
            "throttling",
            "under-voltage: it needs a stronger power supply, or a shorter cable; it is over when the last digit is 0",
            "watch vcgencmd get_throttled",
        ),
        (
            changed(throttled_now=("throttled",)),
            "throttling",
            "throttled: it needs a fan or a heat sink; it is over when",
            "watch vcgencmd get_throttled",
        ),
        (
            changed(throttled_since_boot=("frequency capped",)),
            "throttling",
            "none now; since boot: frequency capped: it needs a fan or a heat sink, then a reboot",
            "sudo reboot",
        ),
        (
            changed(temperatures_c=(Reading("soc", 50), Reading("gpu", 85.25))),
            "temperature",
            "85.2 C (gpu); no block counts above 80 C: it needs to cool, or a fan",
            "sleep 300",
        ),
        (
            replace(CALM, swap_bytes=100 << 20, state=replace(CALM.state, swap_used_bytes=30 << 20)),
            "swap",
            "30 MiB of it are in use",
            "sudo swapoff -a && sudo swapon -a",
        ),
        (
            replace(CALM, other_cpus=1.25),
            "other load",
            "others keep 1.25 cores busy; at most 0.5 is allowed beside a block: end what keeps it busy",
            "top",
        ),
        (
            busy_by(BusyProcess(77, "chromium", 1.1)),
            "other load",
            "others keep 1.25 cores busy; at most 0.5 is allowed beside a block; most of all chromium",
            "sudo kill 77",
        ),
        (
            busy_by(BusyProcess(77, "python3", 1.1, "octoprint@a.service")),
            "other load",
            "others keep 1.25 cores busy; at most 0.5 is allowed beside a block; most of all python3",
            "sudo systemctl stop octoprint@a.service",
        ),
        (busy_by(BusyProcess(77, "attach", 0.01)), "other load", "others keep 1.25 cores busy", "top"),
        (
            busy_by(BusyProcess(77, "x", 1.1, "$(reboot).service")),
            "other load",
            "others keep 1.25 cores busy",
            "sudo kill 77",
        ),
    ],
)
def test_what_speaks_against_measuring_is_told_with_the_command_that_mends_it(found, state, what, text, command):
    seen = found(state)[what]
    assert (seen.is_well, seen.command) == (False, command)
    assert seen.text.startswith(text)


def test_swap_that_is_not_in_use_is_a_note_with_the_command_that_turns_it_off(found):
    seen = found(replace(CALM, swap_bytes=100 << 20))["swap"]
    assert (seen.is_well, seen.command) == (None, "sudo swapoff -a")
    assert seen.text.startswith("100 MiB, not in use")


@pytest.mark.parametrize(("apart_s", "where"), [(3600, "ahead of"), (-3600, "behind")])
def test_a_clock_that_is_wrong_is_told_with_how_far(found, apart_s, where):
    seen = found(apart_s=apart_s)["clock"]
    assert (seen.is_well, seen.command) == (False, "sudo timedatectl set-ntp true")
    apart, _, text = seen.text.partition(" s ")
    assert text == f"{where} this host's"
    assert 3500 < int(apart) <= 3600


def test_a_disk_that_is_nearly_full_is_told(found):
    seen = found(free_bytes=100 << 20)["disk"]
    assert (seen.is_well, seen.text) == (False, "100 MiB free in /home/pi/agent")


def test_an_agent_without_a_runtime_or_of_another_version_is_mended_by_provisioning(found):
    seen = found(runtimes=[{"name": "null", "version": "1"}], agent_version="0.0.9")
    for what in ("runtimes", "versions"):
        assert (seen[what].is_well, seen[what].command) == (False, "edgepress device provision pi4")
    assert seen["versions"].text == "agent 0.0.9; this host has 0.1.0"


def test_what_a_board_does_not_tell_is_no_fault(found):
    seen = found(DeviceState(BoardState(utc=""), utc_s=0.0))
    assert {what: finding.is_well for what, finding in seen.items() if finding.is_well is None} == {
        "governor": None, "throttling": None, "temperature": None, "swap": None, "other load": None,
    }  # fmt: skip


def test_a_board_that_is_leased_is_not_looked_at(tmp_path):
    status = {
        "home": "/h", "free_bytes": 1, "jobs": [], "lease": {"holder": "ana@laptop, run x", "since_utc": "2026"},
    }  # fmt: skip
    board = Device("pi4", "local", agent=str(write_peer(tmp_path, status=status)))
    with AgentClient(open_transport(board), "pi4") as client:
        checkup = check_up(board, client)
    assert checkup.leased_to == "ana@laptop, run x"
    assert [finding.what for finding in checkup.findings] == ["disk", "runtimes", "versions"]


def test_an_agent_that_cannot_tell_is_to_be_provisioned_anew(tmp_path):
    unknown = '{"jsonrpc": "2.0", "id": $ID, "error": {"code": -32601, "message": "unknown method"}}\n'
    status = {"home": "/h", "free_bytes": 1, "jobs": []}
    board = Device("pi4", "local", agent=str(write_peer(tmp_path, status=status, device_state=unknown)))
    with AgentClient(open_transport(board), "pi4") as client:
        checkup = check_up(replace(board, transport="ssh"), client)
    assert checkup.findings[-1] == Finding(
        "versions", False, "this agent cannot tell how the board is", "edgepress device provision pi4"
    )


@pytest.mark.parametrize("number", ["1e400", "-1", "1" + "0" * 400, "true", '"x"'])
def test_a_number_that_makes_no_sense_is_refused(tmp_path, number):
    state = f'{{"state": {{"utc": ""}}, "utc_s": 1, "other_cpus": {number}}}'
    answer = f'{{"jsonrpc": "2.0", "id": $ID, "result": {state}}}\n'
    board = Device("pi4", "local", agent=str(write_peer(tmp_path, device_state=answer)))
    with AgentClient(open_transport(board), "pi4") as client, pytest.raises(DeviceError, match="does not keep to"):
        client.device_state()


def test_a_real_agent_says_how_this_machine_is(tmp_path, agent_home):
    board = Device("here", "local", agent=str(write_agent(tmp_path)), home=str(agent_home))
    with AgentClient(open_transport(board), "here") as client:
        state = client.device_state()
        checkup = check_up(board, client)
    assert from_json(DeviceState, to_json(state)) == state
    clock = next(finding for finding in checkup.findings if finding.what == "clock")
    assert clock.is_well
