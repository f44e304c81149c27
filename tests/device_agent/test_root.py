"""An agent that is shown another board's files: what it says of the board, and what becomes of a block there."""

import shutil
from pathlib import Path

import pytest

from device_agent.protocol import ConditionSpec, MeasureSpec

BOARDS = Path(__file__).parents[1] / "data" / "boards"
ONE_BLOCK = MeasureSpec(processes=1, warmup_s=0.0, timing_s=0.0, min_invokes=8, max_invokes=8)


@pytest.fixture
def board(agent, tmp_path):
    """Restart the agent below a copy of a board's files; return the copy."""

    def use(name: str) -> Path:
        root = tmp_path / name
        shutil.copytree(BOARDS / name, root, symlinks=True)
        agent.kill()
        agent.options = (f"--root={root}",)
        agent.start()
        return root

    return use


def test_the_hello_describes_the_board_below_the_root(agent, board):
    board("pi_4b")
    device = agent.host().hello.device
    assert device.model.startswith("Raspberry Pi 4 Model B")
    assert device.soc == "brcm,bcm2711"


def test_the_board_is_read_before_and_after_a_job(agent, board):
    board("jetson_nano")
    result = agent.host().measure(agent.spec(agent.null_model(), measure=ONE_BLOCK))
    for state in (result.before, result.after):
        assert {rail.name for rail in state.rails_w} >= {"POM_5V_IN"}
        assert state.power_mode


def test_a_board_with_power_rails_gives_energy_and_one_without_does_not(agent, board):
    board("jetson_nano")
    [measured] = agent.host().measure(agent.spec(agent.null_model(invoke_us=500), measure=ONE_BLOCK)).measurements
    assert measured.power.mean_w > 0
    assert measured.power.energy_per_invoke_mj == pytest.approx(
        measured.power.mean_w * measured.power.duration_s / measured.power.invokes * 1000
    )
    board("pi_3b")
    [measured] = agent.host().measure(agent.spec(agent.null_model(), measure=ONE_BLOCK)).measurements
    assert measured.power is None


def test_a_board_that_is_too_hot_is_waited_for_and_then_measured(agent, board):
    root = board("pi_zero_2w")
    zone = next((root / "sys/class/thermal").glob("thermal_zone*/temp"))
    zone.write_text("86000\n")
    asked = ConditionSpec(max_temperature_c=80.0, max_other_cpus=None, retries=3, cooldown_s=30.0)
    host = agent.host()
    job_id = host.submit(agent.spec(agent.null_model(), measure=ONE_BLOCK, conditions=asked))
    stages = []
    for event in host.events(job_id):
        stages.append(event["stage"] if isinstance(event, dict) else event)
        if stages[-1] == "cooldown":
            zone.write_text("60000\n")
    [measured] = host.finish(job_id).measurements
    assert stages == ["start", "cooldown", "timing", "scoring", "finish", "done"]
    assert (measured.retaken, measured.blocks[0].conditions.disturbances) == (1, ())


def test_a_board_that_stays_throttled_gives_blocks_that_say_so(agent, board):
    root = board("pi_zero_2w")
    (root / "sys/devices/platform/soc/soc:firmware/get_throttled").write_text("4\n")
    asked = ConditionSpec(max_temperature_c=None, max_other_cpus=None, retries=1, cooldown_s=0.05)
    [measured] = agent.host().measure(agent.spec(agent.null_model(), measure=ONE_BLOCK, conditions=asked)).measurements
    assert measured.retaken == 1
    assert any("throttled" in text for text in measured.blocks[0].conditions.disturbances)
