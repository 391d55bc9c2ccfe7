"""What the commands print: results to stdout, everything else to stderr, colours only on a terminal."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from personalive.offline import Report


def error(message: str) -> None:
    """One red line on stderr, whatever line breaks the message has."""
    line = "error: " + " ".join(message.split())
    coloured = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    print(f"\x1b[31m{line}\x1b[0m" if coloured else line, file=sys.stderr)


def say(message: str) -> None:
    """A line on stderr."""
    print(message, file=sys.stderr, flush=True)


def summarise(report: Report, *, quiet: bool) -> None:
    """What came of a job: its warnings, and unless `quiet` the rest."""
    for warning in report.warnings:
        say(f"warning: {warning}")
    if quiet:
        return
    for note in report.notes:
        print(f"note: {note}")
    states = ", ".join(f"{count} {state}" for state, count in sorted(report.states.items()))
    many = "frame" if report.frames == 1 else "frames"
    print(
        f"{report.output}: {report.frames} {many} ({states}), {report.width}×{report.height}, "
        f"{report.duration:.2f} s at {report.fps:.5g} fps; made in {report.seconds:.1f} s, "
        f"{report.speed:.1f} frames per second"
    )
