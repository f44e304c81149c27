"""``edgepress board``: parse, one library call, print."""

from __future__ import annotations

import os

import click


@click.group()
def board() -> None:
    """A Raspberry Pi that QEMU emulates: to try things out, not to measure."""


@board.command()
@click.option(
    "--machine", type=click.Choice(["virt", "raspi3b"]), help="What QEMU emulates.  [default: as before, or virt]"
)
def up(machine: str | None) -> None:
    """Start the emulated board, built when there is none yet, and make it known as the device emulated-pi."""
    from pipeline.emulated_board.board import users_board

    device = users_board(click.echo).up(machine)
    click.echo(f"{device.name} is up: {device.user}@{device.host}:{device.port}")


@board.command()
@click.option("--cut", is_flag=True, help="Do not shut it down: cut it off, as when its power fails.")
def down(cut: bool) -> None:
    """Shut the emulated board down; what is on its disk stays."""
    from pipeline.emulated_board.board import users_board
    from pipeline.emulated_board.registration import NAME

    known = users_board(click.echo)
    if cut:
        known.cut_power()
    else:
        known.down()
    click.echo(f"{NAME} is down")


@board.command()
def reset() -> None:
    """Bring the emulated board back to how it was when it was bare, in seconds."""
    from pipeline.emulated_board.board import users_board

    device = users_board(click.echo).reset()
    click.echo(f"{device.name} is bare again")


# What comes behind the first word is the board's, "-h" too.
@board.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def ssh(command: tuple[str, ...]) -> None:
    """Log in to the emulated board as its user pi, or run COMMAND there."""
    from pipeline.emulated_board.board import users_board

    words = users_board(click.echo).ssh_command(command)
    os.execv(words[0], words)  # noqa: S606  a shell is just what is not wanted
