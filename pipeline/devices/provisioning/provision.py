"""A bare board made ready, brought up to date, or cleared: ``edgepress device provision`` and ``unprovision``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import device_agent
from device_agent.layout import SYSTEM_USER
from device_agent.protocol import Hello, Lease
from pipeline.agent_client import AgentClient
from pipeline.cache import Cache
from pipeline.devices.agent_stream import printable
from pipeline.devices.device_file import change_device_file
from pipeline.devices.inventory import Device
from pipeline.devices.provisioning.answers import Done, Installed, Removed, RolledBack
from pipeline.devices.provisioning.bundle import Bundle, agent_files, build_bundle
from pipeline.devices.provisioning.choice import Choice, choose, why_not_at_all
from pipeline.devices.provisioning.delivery import leased, part_words, push_bundle, send_installer
from pipeline.devices.provisioning.installer import Installer, Place, place_on
from pipeline.devices.provisioning.probe import Installation, Probe, probe_board
from pipeline.devices.provisioning.steps import Steps, step
from pipeline.devices.ssh import SshTransport, ssh_transport
from pipeline.errors import DeviceError, ProvisioningFailed, UsageError
from pipeline.reporting.progress import Progress

AGENT_FOLDER = Path(device_agent.__file__).parent


@dataclass(frozen=True)
class Options:
    """What is asked for: ``runtimes`` by name (none: as it was, or the better one), for the whole system or the user.

    ``on_wait`` is called with who has the device before it is waited for; None: do not wait. ``agent`` is the folder of
    the agent's package. ``discard``: also remove results that no host has fetched.
    """

    runtimes: tuple[str, ...] = ()
    is_system: bool = False
    on_wait: Callable[[Lease | None], None] | None = None
    agent: Path = AGENT_FOLDER
    discard: bool = False


@dataclass(frozen=True)
class Provisioned:
    """What came of it; ``note`` says why the board does not start the agent by itself, where it does not."""

    release: str
    hello: Hello
    sent_bytes: int
    is_changed: bool
    note: str = ""


@dataclass(frozen=True)
class _Board:
    """A board that was probed, as this run deals with it; ``device`` is how its agent is reached once it is there.

    ``before`` is how the agent is reached that is there now: its home is not that of the device's file when somebody
    has changed that.
    """

    device: Device
    before: Device
    probe: Probe
    place: Place
    transport: SshTransport
    installer: Installer


def provision(device: Device, options: Options, cache: Cache, progress: Progress) -> Provisioned:
    """Put the agent and its runtimes on ``device``, unless just that is there already.

    Raises:
        DeviceError: if the board cannot be reached, or another has it.
        ProvisioningFailed: with the reason; what ran there before runs on.
        UsageError: if the device is not reached by SSH.
    """
    transport = _transport(device, "it has this checkout's agent already")
    try:
        with step(progress, "probe") as done:
            probe = probe_board(transport, device.name)
            is_system = options.is_system or device.as_user is not None
            there = _installation(probe, is_system, device.name)
            choice = choose(probe, device.name, options.runtimes or (there.runtimes if there else ()))
            done(_described(probe, choice, is_system))
        with step(progress, "bundle") as done:
            bundle = build_bundle(choice, options.agent, cache)
            done(f"release {bundle.release}, {bundle.size_bytes} bytes")
        board = _board(device, probe, is_system, transport, choice.python.path)
        is_there = there is not None and (there.release, there.home) == (bundle.release, board.place.home)
        if is_there and not probe.is_cut:
            provisioned = _bring_up(board, bundle, options, choice)
        else:
            provisioned = _install(board, bundle, options, choice, progress)
    finally:
        transport.close()
    if device.file:
        found = board.device
        change_device_file(device.file, {"agent": found.agent, "home": found.home, "as_user": found.as_user})
    return provisioned


def unprovision(device: Device, options: Options) -> list[str]:
    """Remove all that ``provision`` has put on ``device``, and what its agent keeps; return what was removed.

    Raises:
        DeviceError: if the board cannot be reached, or another has it.
        ProvisioningFailed: with the reason; ``options.discard`` gets over results that no host has fetched.
        UsageError: if the device is not reached by SSH.
    """
    transport = _transport(device, "nothing was installed for it")
    try:
        probe = probe_board(transport, device.name)
        # Also what an installation that was cut short has left, of which the device's file says nothing.
        is_system = device.as_user is not None or (probe.system_begun and probe.user_installation is None)
        board = _board(device, probe, is_system, transport, _any_python(probe, device.name))
        discard = ("--discard",) if options.discard else ()
        with leased(board.before, "unprovision", options.on_wait) as lease:
            send_installer(transport, board.installer, agent_files(options.agent))
            removed = board.installer.ask(Removed, "remove", *discard, *lease.words).removed
    finally:
        transport.close()
    if device.file and removed:
        # A home that somebody has chosen is kept for the next time.
        chosen = device.home if device.home != place_on(probe, board.place.is_system, None).home else None
        change_device_file(device.file, {"agent": None, "home": chosen, "as_user": None})
    return list(removed)


def _transport(device: Device, why_not: str) -> SshTransport:
    if device.transport != "ssh":
        raise UsageError(f'device "{device.name}" is this machine; {why_not}')
    # Files go to the folder of whoever logs in, with the rights of that user: not of the one whom the agent runs as.
    return ssh_transport(replace(device, as_user=None))


def _installation(probe: Probe, is_system: bool, device: str) -> Installation | None:
    """Return what is there, after a look whether what is asked for can be done."""
    other = probe.user_installation if is_system else probe.system_installation
    if other:
        kind = "its user" if is_system else "the whole system"
        raise ProvisioningFailed(
            f'{device} has an agent for {kind} already; run "edgepress device unprovision {device}" first'
        )
    if is_system and not probe.systemd:
        raise ProvisioningFailed(f"{device}: there is no systemd there; provision it without --system")
    if is_system and probe.sudo not in ("root", "yes"):
        found = {"password": "needs a password", "no": "is not there"}.get(probe.sudo, "does not work")
        raise ProvisioningFailed(
            f"{device}: sudo {found} for {probe.user}; provision it without --system, or allow it in sudoers"
        )
    return probe.system_installation if is_system else probe.user_installation


def _any_python(probe: Probe, device: str) -> str:
    """Return a Python that runs the installer."""
    for python in probe.pythons:
        if why_not_at_all(python) is None:
            return python.path
    raise ProvisioningFailed(f"{device} has no Python from 3.9 on any more, by which alone its agent can be removed")


def _board(device: Device, probe: Probe, is_system: bool, transport: SshTransport, python: str) -> _Board:
    place = place_on(probe, is_system, None if is_system else device.home)
    found = replace(device, agent=place.agent, home=place.home, as_user=SYSTEM_USER if is_system else None)
    there = probe.system_installation if is_system else probe.user_installation
    before = replace(found, home=there.home) if there and there.home else found
    return _Board(found, before, probe, place, transport, Installer(transport, device.name, place, python))


def _described(probe: Probe, choice: Choice, is_system: bool) -> str:
    runtimes = " and ".join(lock.title for lock in choice.locks)
    board = probe.model or probe.os or "a board"
    numpy = ", with the board's own numpy" if choice.board_numpy else ""
    free_kib = probe.system_free_kib if is_system else probe.user_free_kib
    free = "" if free_kib is None else f", {free_kib / 1024:,.0f} MiB free"
    return f"{board}: {runtimes} in {choice.python.name} on {choice.machine}{numpy}{free}"


def _bring_up(board: _Board, bundle: Bundle, options: Options, choice: Choice) -> Provisioned:
    """See that the release, which is there, is the one that runs."""
    hello = _hello(board.device)
    is_changed = hello is None or hello.release != bundle.release
    if is_changed:
        send_installer(board.transport, board.installer, agent_files(options.agent))
        with leased(board.before, "provision", options.on_wait) as lease:
            board.installer.ask(Done, "restart", *lease.words)
    return Provisioned(bundle.release, _checked_hello(board.device, bundle, choice), 0, is_changed)


def _install(board: _Board, bundle: Bundle, options: Options, choice: Choice, progress: Progress) -> Provisioned:
    name = board.device.name
    with leased(board.before, "provision", options.on_wait) as lease:
        send_installer(board.transport, board.installer, agent_files(options.agent))
        sent = push_bundle(board.transport, board.installer, bundle, name, lease, progress)
        with Steps(progress) as steps:
            words = (*part_words(bundle), *lease.words)
            installed = board.installer.ask(Installed, "install", *words, on_stage=steps.next)
    try:
        hello = _checked_hello(board.device, bundle, choice)
    except DeviceError as error:
        raise _rolled_back(board, installed, options, error) from error
    return Provisioned(bundle.release, hello, sent, True, printable(installed.note))


def _rolled_back(board: _Board, installed: Installed, options: Options, error: DeviceError) -> ProvisioningFailed:
    """Go back to the release before, if there was one, and return the error that tells of it, or why that failed."""
    if installed.previous in (None, installed.release):
        return ProvisioningFailed(f"{error}; release {installed.release} is in place there, and none was before it")
    try:
        send_installer(board.transport, board.installer, agent_files(options.agent))
        back = board.installer.ask(RolledBack, "roll-back")
    except DeviceError as failed:
        return ProvisioningFailed(f"{error}; could not go back to release {installed.previous}: {failed}")
    return ProvisioningFailed(f"{error}; went back to release {back.release}")


def _hello(device: Device) -> Hello | None:
    try:
        with AgentClient(ssh_transport(device), device.name) as client:
            return client.hello
    except DeviceError:
        return None


def _checked_hello(device: Device, bundle: Bundle, choice: Choice) -> Hello:
    with AgentClient(ssh_transport(device), device.name) as client:
        hello = client.hello
    if hello.release != bundle.release:
        raise ProvisioningFailed(f"{device.name}: the agent that answers is not release {bundle.release}")
    for runtime in hello.runtimes:
        if runtime.name in choice.runtimes and runtime.problem:
            raise ProvisioningFailed(f"{device.name}: {runtime.name} cannot be used: {printable(runtime.problem)}")
    return hello
