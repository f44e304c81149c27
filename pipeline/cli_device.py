"""``edgepress device``: parse, one library call, print. Everything heavy is imported by the command that needs it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.table import Table

    from device_agent.protocol import Hello, Lease
    from pipeline.devices.checkup import Finding
    from pipeline.devices.survey import Standing
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
    click.echo(f'wrote {file}; next: "edgepress device trust {name}", then "edgepress device provision {name}"')


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
@click.option(
    "--runtime", "runtimes", multiple=True, help="Runtime to install; may be given again.  [default: as it was]"
)
@click.option("--system", is_flag=True, help="Install a service of the whole system, with a user of its own, by sudo.")
@click.option("--wait", is_flag=True, help="Wait for a device that another has leased.")
def provision(name: str, runtimes: tuple[str, ...], system: bool, wait: bool) -> None:
    """Put the agent and a runtime on a board that has SSH and Python 3, or bring them up to date."""
    from rich.console import Console

    from pipeline.cache import user_cache
    from pipeline.devices.inventory import find_device
    from pipeline.devices.provisioning.provision import Options
    from pipeline.devices.provisioning.provision import provision as provision_device
    from pipeline.devices.survey import note_seen
    from pipeline.reporting.terminal import RunDisplay

    options = Options(runtimes, system, _waiting if wait else None)
    with RunDisplay(Console(), metric="") as display:
        done = provision_device(find_device(name), options, user_cache(), display)
    note_seen(name)
    if not done.is_changed:
        click.echo(f"nothing changed: {name} has release {done.release} already")
        return
    click.echo(f"{name} runs release {done.release}; next: edgepress device check {name}")
    if done.note:
        click.echo(f"the agent starts when a host asks for it, not with the board: {done.note}")


@device.command()
@click.argument("name")
@click.option("--discard", is_flag=True, help="Also remove results that no host has fetched.")
@click.option("--wait", is_flag=True, help="Wait for a device that another has leased.")
def unprovision(name: str, discard: bool, wait: bool) -> None:
    """Remove from a board all that "provision" has put there, and what its agent keeps."""
    from pipeline.devices.agent_stream import printable
    from pipeline.devices.inventory import find_device
    from pipeline.devices.provisioning.provision import Options
    from pipeline.devices.provisioning.provision import unprovision as unprovision_device

    removed = unprovision_device(find_device(name), Options(on_wait=_waiting if wait else None, discard=discard))
    for what in removed:
        click.echo(f"removed {printable(what)}")
    if not removed:
        click.echo(f"nothing was installed on {name}")


@device.command()
@click.argument("name")
def check(name: str) -> None:
    """Tell what a board is, and whether it can be measured well, with the commands that mend what is not."""
    from rich.console import Console

    from pipeline.agent_client import AgentClient
    from pipeline.devices.checkup import check_up
    from pipeline.devices.inventory import find_device
    from pipeline.devices.survey import note_seen
    from pipeline.devices.transport import open_transport

    found = find_device(name)
    with AgentClient(open_transport(found), name) as client:
        checkup = check_up(found, client)
    note_seen(name)
    console = Console(highlight=False)
    console.print(_table((name, "is up"), _hello_rows(checkup.hello)))
    console.print(_table(("looked at", "", "found", "what mends it"), _finding_rows(checkup.findings)))
    if checkup.leased_to:
        click.echo(f"not looked at, so as not to disturb {checkup.leased_to}, who has it: its clock, load and heat")


@device.command("list")
@click.option("--offline", is_flag=True, help="Ask none of them; show when each was last seen.")
def list_command(offline: bool) -> None:
    """List all boards, and ask each whether it is up and who has it."""
    from rich.console import Console

    from pipeline.devices.inventory import list_devices
    from pipeline.devices.survey import Standing, last_seen, survey

    devices = list_devices()
    standings = [Standing(d, "", "", last_seen(d.name)) for d in devices] if offline else survey(devices)
    heads = ("name", "host", "tags", "state", "leased by", "last seen", "file")
    Console(highlight=False).print(_table(heads, [_standing_row(standing) for standing in standings]))


@device.command()
@click.argument("name")
def remove(name: str) -> None:
    """Forget a board: delete its file."""
    from pipeline.devices.inventory import remove_device

    click.echo(f"removed {remove_device(name)}")


def _waiting(lease: Lease | None) -> None:
    holder = f"{lease.holder} since {lease.since_utc}" if lease else "somebody"
    click.echo(f"waiting for {holder}", err=True)


def _standing_row(standing: Standing) -> tuple[str, ...]:
    found = standing.device
    place, file = found.host or "this machine", str(found.file or "built in")
    return (found.name, place, ", ".join(found.tags), standing.state, standing.lease, standing.seen_utc, file)


def _finding_rows(findings: Sequence[Finding]) -> list[tuple[str, ...]]:
    words = {True: "ok", False: "mend", None: "note"}
    return [(finding.what, words[finding.is_well], finding.text, finding.command) for finding in findings]


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
