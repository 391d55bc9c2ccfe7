"""`personalive doctor`: shows what this machine has, what is missing, and the command that fixes it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from personalive.cli.text_layout import format_definition, terminal_width

if TYPE_CHECKING:
    from personalive.cli.check_result import CheckResult

EPILOG = """Examples:

personalive doctor

personalive doctor --json > doctor.json

Each line is a result: "ok"; "note", which is useful to know and no problem; or "problem". Below it is what to do,
if anything.

For a GPU it shows: the card, its compute capability and memory; whether its driver is new enough for the installed
PyTorch, and whether that PyTorch was built for GPUs; whether Triton can build the fused kernels, which needs a C
compiler and Python's headers; how the diffusion pipeline fits into the memory that is free now; and the expected
rate, measured or computed for that card (docs/reference/cards.md). Nothing is loaded or left behind; it takes some
seconds.
"""


def doctor(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON, for programs.")] = False,
) -> None:
    """Check this machine: what it has, what is missing, and how to fix it.

    Exits 0 if portraits can be animated here, and 1 if not.
    """
    import dataclasses
    import json

    from personalive.cli.diagnostics import run_all_checks

    checks = run_all_checks()
    able = all(check.ok is not False for check in checks if check.required)
    if as_json:
        told = [{"level": each.level, **dataclasses.asdict(each)} for each in checks]
        typer.echo(json.dumps({"ready": able, "checks": told}, indent=2))
    else:
        for check in checks:
            typer.echo(_format_check(check))
        typer.echo("")
        typer.echo("Portraits can be animated here." if able else "Portraits cannot be animated here.")
    if not able:
        raise typer.Exit(1)


def _format_check(check: CheckResult) -> str:
    width = terminal_width(sys.stdout)
    line = format_definition(f"{check.level:<9}{check.name}", check.detail, width, indent=31)
    if not check.remedy:
        return line
    return f"{line}\n{format_definition('', f'to do: {check.remedy}', width, indent=31).lstrip(chr(10))}"
