"""Output of the commands: results to stdout, everything else to stderr, colours only on a terminal."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from personalive.cli.text_layout import terminal_width, wrap

if TYPE_CHECKING:
    from personalive.jobs import Report


def print_error(message: str) -> None:
    """Print the message as one red line on stderr, without its line breaks; terminals get it word-wrapped."""
    line = wrap("error: " + " ".join(message.split()), terminal_width(sys.stderr))
    coloured = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    print(f"\x1b[31m{line}\x1b[0m" if coloured else line, file=sys.stderr)


def print_status(message: str) -> None:
    """Print a line on stderr, word-wrapped on a terminal."""
    print(wrap(message, terminal_width(sys.stderr)), file=sys.stderr, flush=True)


def print_result(message: str, *, hanging: int = 0) -> None:
    """Print a result on stdout, word-wrapped on a terminal; lines after the first are indented by `hanging`."""
    print(wrap(message, terminal_width(sys.stdout), hanging=hanging))


def print_report(report: Report, *, quiet: bool) -> None:
    """Print the report on a job: its warnings, and unless `quiet` the rest."""
    for warning in report.warnings:
        print_status(f"warning: {warning}")
    if quiet:
        return
    for note in report.notes:
        print_result(f"note: {note}")
    states = ", ".join(f"{count} {state}" for state, count in sorted(report.states.items()))
    many = "frame" if report.frames == 1 else "frames"
    print_result(
        f"{report.output}: {report.frames} {many} ({states}), {report.width}×{report.height}, "
        f"{report.duration:.2f} s at {report.fps:.5g} fps; made in {report.seconds:.1f} s, "
        f"{report.speed:.1f} frames per second"
    )
