"""`personalive doctor`: what this machine has, what is missing, and the command that mends it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from personalive.cli.checks import Check

_MARKS = {True: "ok  ", False: "FAIL", None: "info"}


def doctor(
    *, as_json: Annotated[bool, typer.Option("--json", help="For programs: everything as JSON.")] = False
) -> None:
    """Check this machine: what is there, what is missing, and how to mend it.

    Exits 0 if portraits can be animated here, and 1 if not.
    """
    import dataclasses
    import json

    from personalive.cli.checks import all_checks

    checks = all_checks()
    able = all(check.ok is not False for check in checks if check.required)
    if as_json:
        typer.echo(json.dumps({"ready": able, "checks": [dataclasses.asdict(c) for c in checks]}, indent=2))
    else:
        for check in checks:
            typer.echo(_line(check))
        typer.echo("")
        typer.echo("Portraits can be animated here." if able else "Portraits cannot be animated here.")
    if not able:
        raise typer.Exit(1)


def _line(check: Check) -> str:
    line = f"{_MARKS[check.ok]}  {check.name:<22}{check.detail}"
    return f"{line}\n{'':28}to mend: {check.remedy}" if check.remedy else line
