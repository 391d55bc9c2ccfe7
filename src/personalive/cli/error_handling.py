"""The one place that turns errors into messages and exit codes."""

from __future__ import annotations

from typing import cast

import typer

from personalive.cli import console
from personalive.cli.narrow_help import fit_to_terminal
from personalive.cli.terminal_encoding import tolerate_unencodable
from personalive.errors import PersonaLiveError

EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143

# The place of Typer's copy of Click differs between versions; its errors share this base.
_USAGE_ERROR = cast("type[Exception]", typer.BadParameter.__mro__[2])


def run(application: typer.Typer, name: str) -> int:
    """Run an application on `sys.argv` and return its exit code; defects keep their traceback.

    `name` is the application's name in messages.
    """
    tolerate_unencodable()
    try:
        command = typer.main.get_command(application)
        fit_to_terminal(command)
        code = command(standalone_mode=False, prog_name=name)
    except PersonaLiveError as error:
        console.print_error(str(error))
        return error.exit_code
    except ImportError as error:
        if (error.name or "personalive").partition(".")[0] == "personalive":
            raise
        from personalive.installation import import_remedy

        console.print_error(f"{error}. Run: {import_remedy(error)}")
        return 2
    except (KeyboardInterrupt, typer.Abort):
        code = EXIT_INTERRUPTED
    except _USAGE_ERROR as error:
        context = getattr(error, "ctx", None)
        message = getattr(error, "format_message", error.__str__)().rstrip(".")
        console.print_error(f"{message}. See: {context.command_path if context else name} --help")
        return 2
    if code == EXIT_INTERRUPTED:
        console.print_status("interrupted: nothing was written")
    return code if isinstance(code, int) else 0
