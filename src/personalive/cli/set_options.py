"""Parses `--set NAME=VALUE`: parameters by name from the command line."""

from __future__ import annotations

import json

import typer


def parse_settings(assignments: list[str] | None) -> dict[str, object]:
    """Return values by name: parsed as JSON if possible, else the text itself.

    Raises `typer.BadParameter` for text that is not NAME=VALUE.
    """
    values: dict[str, object] = {}
    for setting in assignments or []:
        name, equals, text = setting.partition("=")
        if not (equals and name.strip()):
            raise typer.BadParameter(f"--set takes NAME=VALUE, not {setting!r}.")
        try:
            values[name.strip()] = json.loads(text)
        except ValueError:  # a word such as `quality`
            values[name.strip()] = text
    return values
