"""The command line: parse, one call, print. The one place that turns errors into exit codes.

Everything heavy is imported inside the command that needs it, so that ``edgepress --help`` answers at once.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.console import RenderableType

    from pipeline.experiment import Run
    from pipeline.results.fleet_store import FleetRun
    from pipeline.results.record import RunRecord

INTERRUPTED = 130
BUDGET_MISSED = 3

_LAZY_GROUPS = {"board": "pipeline.cli_board", "device": "pipeline.cli_device"}


class LazyGroup(click.Group):
    """A group whose sub-groups are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands, those not imported yet among them."""
        return sorted({*super().list_commands(ctx), *_LAZY_GROUPS})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, importing its module when it has one of its own."""
        if cmd_name in _LAZY_GROUPS:
            group: click.Command = getattr(importlib.import_module(_LAZY_GROUPS[cmd_name]), cmd_name)
            return group
        return super().get_command(ctx, cmd_name)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="edgepress")
def cli() -> None:
    """Compress a model, measure it on your own board, and learn which version may ship."""


@cli.command()
@click.argument("experiment", type=click.Path(path_type=Path))
@click.option(
    "--device",
    "devices",
    multiple=True,
    help="Measure on this device, or on all with a tag (tag:NAME), instead of the experiment's; may be given again.",
)
@click.option("--resume", metavar="RUN", default="", help="Do the rest of RUN, a run on several devices: id or folder.")
@click.option("--reuse", is_flag=True, help="Take over the measurements of an earlier run of the very same job.")
@click.option(
    "--output", type=click.Path(path_type=Path), default=Path("runs"), show_default=True, help="Folder of runs."
)
@click.option("--wait", is_flag=True, help="Wait for a device that another has leased.")
@click.option("--quiet", is_flag=True, help="Print nothing but the results.")
@click.pass_context
def run(
    ctx: click.Context,
    experiment: Path,
    devices: tuple[str, ...],
    resume: str,
    reuse: bool,
    output: Path,
    wait: bool,
    quiet: bool,
) -> None:
    """Build every variant of EXPERIMENT, measure them on the device or devices, and write the report.

    Ends with exit code 3 when no variant meets the budget, and 1 when none could be measured, on any of the devices.
    """
    from rich.console import Console

    from pipeline.cache import user_cache
    from pipeline.config import load_experiment
    from pipeline.experiment import Options, run_experiment
    from pipeline.reporting.progress import NoProgress
    from pipeline.reporting.terminal import RunDisplay

    asked = load_experiment(experiment)
    options = Options(output, user_cache(), reuse, wait, devices, resume)
    console = Console()
    if quiet:
        finished = run_experiment(asked, options, NoProgress())
    else:
        with RunDisplay(console, asked.metric) as display:
            finished = run_experiment(asked, options, display)
    console.print(_summary(finished.found, console.width))
    console.print(f"report: {finished.folder / 'report.html'}", soft_wrap=True)
    if finished.rest:
        why = "interrupted; the rest" if finished.interrupted else "the rest"
        console.print(f"{why}: edgepress run {experiment} --resume {finished.folder}", soft_wrap=True)
    ctx.exit(_exit_code(finished))


@cli.command()
@click.argument("job")
@click.option("--device", default="local", show_default=True, help="The device that has the job.")
@click.pass_context
def attach(ctx: click.Context, job: str, device: str) -> None:
    """Follow JOB, that some run has handed in, to its end; ends with exit code 1 when it was not done."""
    from rich.console import Console

    from pipeline.jobs import follow_job
    from pipeline.reporting.terminal import RunDisplay

    with RunDisplay(Console(), metric="") as display:
        ended = follow_job(device, job, display)
    click.echo("\n".join(ended.lines))
    if ended.state == "done":
        click.echo('for its report, run the experiment again: "edgepress run" takes the job over')
    ctx.exit(0 if ended.state == "done" else 1)


@cli.command()
@click.argument("job")
@click.option("--device", default="local", show_default=True, help="The device that has the job.")
def cancel(job: str, device: str) -> None:
    """Stop JOB on its device, and print the state that it ended in."""
    from pipeline.jobs import cancel_job

    click.echo(f"job {job} is {cancel_job(device, job)}")


@cli.command()
@click.option(
    "--model", required=True, type=click.Path(path_type=Path), help="A .keras, .h5 or .tflite file, or a SavedModel."
)
@click.option("--data", required=True, type=click.Path(path_type=Path), help="An .npz file with x_test and y_test.")
@click.option("--metric", required=True, help="What is scored: top1 or top5.")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The experiment file to write.")
@click.option("--force", is_flag=True, help="Write over an experiment that is there already.")
def init(model: Path, data: Path, metric: str, output: Path, force: bool) -> None:
    """Write a commented experiment for a model and data of your own."""
    from pipeline.starter import write_experiment

    write_experiment(model, data, metric, output, force)
    click.echo(f"wrote {output}; next: edgepress run {output}")


@cli.command()
@click.argument("task")
@click.option(
    "--seed", default=0, show_default=True, type=click.IntRange(0, 2**32 - 1), help="Where everything random starts."
)
@click.option("--epochs", type=click.IntRange(1), help="Passes over the training data.  [default: the task's own]")
@click.option("--data", type=click.Path(path_type=Path), help="A folder with the task's original files.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Checkpoint to write.  [default: the task's own]")
def train(task: str, seed: int, epochs: int | None, data: Path | None, output: Path | None) -> None:
    """Train the reference model of TASK and write its checkpoint with its provenance."""
    from pipeline.training.reference_tasks import train_task

    train_task(task, seed, epochs, data, output, click.echo)


@cli.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON: every index, computed tensors too.")
def inspect(file: Path, as_json: bool) -> None:
    """Print what the .tflite FILE holds: its recipe, operators, tensors, sizes and cost."""
    import json
    from dataclasses import asdict

    from rich.console import Console

    from pipeline.inspection import inspect_file
    from pipeline.reporting.inspection import inspection_summary

    found = inspect_file(file)
    if as_json:
        click.echo(json.dumps(asdict(found), indent=2))
    else:
        Console(highlight=False).print(inspection_summary(found))


@cli.command()
def schema() -> None:
    """Print the JSON Schema of an experiment file, for editors that complete YAML."""
    import json

    from pipeline.config import experiment_schema

    click.echo(json.dumps(experiment_schema(), indent=2))


def main() -> None:
    """Run the command line; every expected fault is one message and an exit code."""
    try:
        code = cli.main(standalone_mode=False)
    except click.exceptions.Abort:  # what click makes of Ctrl-C, and of the end of input at a prompt
        click.echo("interrupted; what was finished is kept: run the same command again to go on", err=True)
        code = INTERRUPTED
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except Exception as error:
        from pipeline.errors import EdgepressError

        if not isinstance(error, EdgepressError):
            raise
        click.echo(f"edgepress: {error}", err=True)
        code = error.exit_code
    sys.exit(code if isinstance(code, int) else 0)


def _summary(found: RunRecord | FleetRun, width: int) -> RenderableType:
    from pipeline.reporting.fleet_terminal import fleet_summary
    from pipeline.reporting.terminal import run_summary
    from pipeline.results.record import RunRecord

    return run_summary(found, width) if isinstance(found, RunRecord) else fleet_summary(found)


def _exit_code(finished: Run) -> int:
    if finished.interrupted:
        return INTERRUPTED
    if not finished.measured:
        return 1
    return 0 if finished.budget_met else BUDGET_MISSED


if __name__ == "__main__":
    main()
