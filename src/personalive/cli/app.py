"""`personalive`: the application with its commands."""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import Annotated

import typer

from personalive.cli.animate import EPILOG as ANIMATE_EPILOG
from personalive.cli.animate import animate
from personalive.cli.batch import EPILOG as BATCH_EPILOG
from personalive.cli.batch import batch
from personalive.cli.bench import EPILOG as BENCH_EPILOG
from personalive.cli.bench import bench
from personalive.cli.cluster import app as cluster
from personalive.cli.doctor import EPILOG as DOCTOR_EPILOG
from personalive.cli.doctor import doctor
from personalive.cli.download import EPILOG as DOWNLOAD_EPILOG
from personalive.cli.download import download
from personalive.cli.error_handling import EXIT_TERMINATED, run
from personalive.cli.live import EPILOG as LIVE_EPILOG
from personalive.cli.live import live
from personalive.cli.motion import app as motion
from personalive.cli.pipelines import pipelines
from personalive.cli.serve import EPILOG as SERVE_EPILOG
from personalive.cli.serve import serve
from personalive.cli.weights import app as weights
from personalive.signals import ending_signals

_EPILOG = """Examples:

personalive animate portrait.jpg talking.mp4

personalive animate portrait.jpg talking.mp4 --side-by-side -o compare.mp4

personalive live portrait.jpg

personalive serve --pipeline preview

personalive doctor
"""

app = typer.Typer(
    name="personalive",
    help="Animate a portrait with the expressions and head motion of a video.",
    epilog=_EPILOG,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(epilog=ANIMATE_EPILOG)(animate)
app.command(epilog=LIVE_EPILOG)(live)
app.command(epilog=BATCH_EPILOG)(batch)
app.command(epilog=DOWNLOAD_EPILOG)(download)
app.command(epilog=DOCTOR_EPILOG)(doctor)
app.command()(pipelines)
app.command(epilog=SERVE_EPILOG)(serve)
app.command(epilog=BENCH_EPILOG)(bench)
app.add_typer(cluster)
app.add_typer(motion)
app.add_typer(weights)


@app.command()
def version() -> None:
    """Print the version."""
    import personalive

    typer.echo(f"personalive {personalive.__version__}")


def _print_version(wanted: bool) -> None:
    if wanted:
        version()
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _start(
    context: typer.Context,
    wanted: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version.")
    ] = False,
) -> None:
    del wanted
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main() -> None:
    """Run the command line. Exits 0 when done, 2 for errors that the user can fix, 130 when interrupted."""
    for number in ending_signals():
        if number is not signal.SIGINT:  # which interrupts
            signal.signal(number, _terminate)
    sys.exit(run(app, "personalive"))


def _terminate(number: int, frame: FrameType | None) -> None:
    """Exit through every context manager, so that no incomplete files are left behind."""
    del number, frame
    sys.exit(EXIT_TERMINATED)
