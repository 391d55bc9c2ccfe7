"""The one place where errors turn into lines and exit codes."""

from __future__ import annotations

from typing import cast

import typer

from personalive.cli import console
from personalive.cli.narrow_help import fit
from personalive.cli.terminal_encoding import tolerate
from personalive.errors import PersonaLiveError

INTERRUPTED = 130
TERMINATED = 143

# Typer keeps its copy of Click in different places from version to version; its errors share this base.
_USAGE_ERROR = cast("type[Exception]", typer.BadParameter.__mro__[2])


def run(application: typer.Typer, name: str) -> int:
    """Run an application on `sys.argv` and return its exit code; a defect of ours keeps its traceback.

    `name` is what the application is called in its messages.
    """
    tolerate()
    try:
        command = typer.main.get_command(application)
        fit(command)
        code = command(standalone_mode=False, prog_name=name)
    except PersonaLiveError as error:
        console.error(str(error))
        return error.exit_code
    except ImportError as error:
        if (error.name or "personalive").partition(".")[0] == "personalive":
            raise
        from personalive.installation import import_remedy

        console.error(f"{error}. Run: {import_remedy(error)}")
        return 2
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except _USAGE_ERROR as error:
        context = getattr(error, "ctx", None)
        message = getattr(error, "format_message", error.__str__)().rstrip(".")
        console.error(f"{message}. See: {context.command_path if context else name} --help")
        return 2
    if code == INTERRUPTED:
        console.say("interrupted: nothing was written")
    return code if isinstance(code, int) else 0
