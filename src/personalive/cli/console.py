"""What the commands print: results to stdout, everything else to stderr, colours only on a terminal."""

from __future__ import annotations

import os
import sys


def error(message: str) -> None:
    """One red line on stderr, whatever line breaks the message has."""
    line = "error: " + " ".join(message.split())
    coloured = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    print(f"\x1b[31m{line}\x1b[0m" if coloured else line, file=sys.stderr)


def say(message: str) -> None:
    """A line on stderr."""
    print(message, file=sys.stderr, flush=True)
