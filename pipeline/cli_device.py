"""``edgepress device``: parse, one library call, print. Everything heavy is imported by the command that needs it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.table import Table

    from device_agent.protocol import Hello
    from pipeline.devices.trust import ShownKey


@click.group()
def device() -> None:
    """The boards that edgepress knows, and how it reaches them."""


@device.command()
@click.argument("name")
@click.option("--host", required=True, help="Host name, address, or a Host of ~/.ssh/config.")
@click.option("--port", type=click.IntRange(1, 65535), help="Port of its SSH server.")
@click.option("--user", help="User to log in as.")
@click.option("--identity-file", type=click.Path(path_type=Path), help="Private key to log in with.")
@click.option("--agent", default="edgepress-agent", show_default=True, help="Path of the agent on the device.")
@click.option("--home", help="Folder on the device in which the agent keeps its files.")
@click.option("--tag", "tags", multiple=True, help="Word to group devices by; may be given again.")
def add(
    name: str,
    host: str,
    port: int | None,
    user: str | None,
    identity_file: Path | None,
    agent: str,
    home: str | None,
    tags: tuple[str, ...],
) -> None:
    """Add a board that is reached by SSH."""
    from pipeline.devices.inventory import Device, add_device

    identity = identity_file.absolute() if identity_file else None
    file = add_device(Device(name, "ssh", host, port, user, identity, agent, home, tags))
    click.echo(f'wrote {file}; next: "edgepress device trust {name}", then "edgepress device check {name}"')


@device.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask; for networks in which nobody can stand in between.")
@click.option("--replace", is_flag=True, help="Take over a key that has changed, after a board was installed anew.")
def trust(name: str, yes: bool, replace: bool) -> None:
    """Show the fingerprint of a board's host key, and take it over when you agree."""
    from pipeline.devices.inventory import find_device
    from pipeline.devices.trust import trust_device
    from pipeline.errors import HostKeyRefused

    def confirm(shown: ShownKey) -> None:
        click.echo(f"{shown.title} shows the host key\n  {shown.key_type} {shown.fingerprint}")
        click.echo("Compare it with the board's own: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub")
        if not yes and not click.confirm("Is it the same?"):
            raise HostKeyRefused(f"host key of {shown.title} was not taken over")

    taken = trust_device(find_device(name), confirm, replace)
    click.echo(f"{name} is trusted" if taken else f"{name} was trusted already")


@device.command()
@click.argument("name")
def check(name: str) -> None:
    """Connect to a board and print what it says of itself."""
    from rich.console import Console

    from pipeline.agent_client import AgentClient
    from pipeline.devices.inventory import find_device
    from pipeline.devices.transport import open_transport

    with AgentClient(open_transport(find_device(name)), name) as client:
        Console(highlight=False).print(_table((name, "is up"), _hello_rows(client.hello)))


@device.command("list")
def list_command() -> None:
    """List all boards."""
    from rich.console import Console

    from pipeline.devices.inventory import list_devices

    rows = [(d.name, d.host or "this machine", ", ".join(d.tags), str(d.file or "built in")) for d in list_devices()]
    Console(highlight=False).print(_table(("name", "host", "tags", "file"), rows))


@device.command()
@click.argument("name")
def remove(name: str) -> None:
    """Forget a board: delete its file."""
    from pipeline.devices.inventory import remove_device

    click.echo(f"removed {remove_device(name)}")


def _hello_rows(hello: Hello) -> list[tuple[str, ...]]:
    board = hello.device
    ram = f", {board.ram_bytes / 2**30:.1f} GiB" if board.ram_bytes else ""
    emulated = ", emulated: no time is reported" if board.emulated else ""
    runtimes = [(f"runtime {r.name}", r.version or f"cannot be used: {r.problem}") for r in hello.runtimes]
    return [
        ("board", f"{board.model or 'unnamed'} ({board.machine}, {board.cores} cores{ram}){emulated}"),
        ("system", f"{board.os or 'unknown'}, kernel {board.kernel}, Python {board.python}"),
        ("agent", f"{hello.agent_version}, protocol {hello.protocol}"),
        *runtimes,
        ("free space", f"{hello.free_bytes / 2**20:,.0f} MiB in {hello.home}"),
    ]


def _table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Table:
    from rich.box import SIMPLE
    from rich.table import Table
    from rich.text import Text

    from pipeline.devices.agent_stream import printable

    table = Table(*heads, box=SIMPLE)
    for row in rows:
        # Text: what a board says of itself is no markup of ours.
        table.add_row(*(Text(printable(cell), overflow="fold") for cell in row))
    return table
