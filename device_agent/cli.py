"""``edgepress-agent``: serve, attach, status and sftp."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from device_agent import __version__
from device_agent.checks import ProtocolError, check_identifier
from device_agent.errors import AgentError
from device_agent.home import default_home
from device_agent.runtimes import UnknownRuntime, check_known
from device_agent.settings import DEFAULT_QUOTA_MIB, Settings

_MOST_MIB = 1 << 30


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0 ok, 1 failed; argparse leaves with 2."""
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except AgentError as error:
        print(f"edgepress-agent: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _run(options: argparse.Namespace) -> int:
    if options.command == "sftp":
        from device_agent import sftp

        sftp.become_server()
    home = options.home.expanduser().absolute()
    if options.command == "serve":
        from device_agent import daemon

        daemon.run(home, _settings(options), options.ready_fd, options.stand_by)
        return 0
    if options.command == "attach":
        from device_agent import attach

        return attach.relay(home, _settings(options), start=not options.no_start)
    from device_agent import status

    return status.show(home)


def _settings(options: argparse.Namespace) -> Settings:
    return Settings(dict(options.runtime), options.quota_mib, options.root.absolute())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="edgepress-agent", description="Measure models on this device for edgepress.")
    parser.add_argument("--version", action="version", version=f"edgepress-agent {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    serve = commands.add_parser("serve", help="run the agent in the foreground")
    attach = commands.add_parser("attach", help="relay stdin and stdout to the agent; start it when none runs")
    status = commands.add_parser("status", help="say what the agent is doing; exit code 1 when none runs")
    commands.add_parser("sftp", help="be an SFTP server on stdin and stdout, for a host that came in as another user")
    for command in (serve, attach, status):
        command.add_argument("--home", type=Path, default=default_home(), help="the agent's folder (%(default)s)")
    for command in (serve, attach):
        command.add_argument(
            "--runtime", metavar="NAME=PYTHON", type=_runtime, action="append", default=[], help=_RUNTIME_HELP
        )
        command.add_argument(
            "--quota-mib",
            metavar="N",
            type=_quota,
            default=DEFAULT_QUOTA_MIB,
            help="room for models and data (%(default)s)",
        )
        command.add_argument(
            "--root", type=Path, default=Path("/"), help="the folder below which proc and sys are read (%(default)s)"
        )
    serve.add_argument("--stand-by", action="store_true", help="wait while another agent serves that folder")
    attach.add_argument("--no-start", action="store_true", help="start no agent: something else does that")
    serve.add_argument("--ready-fd", type=int, help=argparse.SUPPRESS)
    return parser


_RUNTIME_HELP = "the Python that has the runtime NAME; by default of a sibling environment called NAME, else our own"


def _quota(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 0 < int(text) <= _MOST_MIB):
        raise argparse.ArgumentTypeError(f'"{text}" is no number of MiB from 1 to {_MOST_MIB}')
    return int(text)


def _runtime(text: str) -> tuple[str, str]:
    name, separator, python = text.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f'"{text}" is not NAME=PYTHON')
    try:
        check_known(check_identifier("runtime", name))
    except (ProtocolError, UnknownRuntime) as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    # Not resolved: the link's own place tells Python which environment it is in.
    path = Path(python).expanduser().absolute()
    if not os.access(path, os.X_OK) or path.is_dir():
        raise argparse.ArgumentTypeError(f"{path} is not a Python that can be run")
    return name, str(path)
