"""`personalive serve`: runs a server until it is stopped."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from personalive.cli.server_options import CONFIG, read_flags, with_options
from personalive.errors import InputError
from personalive.server.options import SERVER_OPTIONS

if TYPE_CHECKING:
    from personalive.server.settings import Settings

EPILOG = """Examples:

personalive serve

personalive serve --pipeline preview --set width=512 --set height=512 --reference portrait.jpg

PERSONALIVE_API_KEY=$(openssl rand -hex 32) personalive serve --host 0.0.0.0 --udp-ports 50000-50100

personalive serve --pipeline personalive --gpus all

personalive serve --config server.toml --log-format json

Every flag is also an environment variable (PERSONALIVE_MAX_SESSIONS=4) and a line of the TOML file
(max_sessions = 4); flags override the environment, which overrides the file. Set keys and passwords in the
environment or the file: other users of this machine can see flags.

By default it serves this machine only; with another --host it needs a key. For HTTPS put nginx or Caddy in front
of it; docs/how-to/https-and-turn.md explains both, and how media gets through firewalls.
"""

_SERVER_PACKAGES = ("aiortc", "fastapi", "uvicorn", "pydantic_settings", "prometheus_client")


@with_options({"config": CONFIG, **SERVER_OPTIONS})
def serve(*, config: Path | None = None, **given: Any) -> None:
    """Serve portraits that follow a live camera, over HTTP and WebRTC.

    It prints the address of its page, which shows how to load a pipeline, choose a portrait and open a session.
    """
    require_server_packages()
    from personalive.server.run import run_server
    from personalive.server.settings import read_settings

    settings = read_settings(read_flags(given), config)
    run_server(settings, on_start=lambda url: print_startup(settings, url))


def missing_server_packages() -> list[str]:
    """Return the server's packages that are not installed."""
    return [name for name in _SERVER_PACKAGES if importlib.util.find_spec(name) is None]


def require_server_packages(extra: str = "server", name: str = "The server") -> None:
    """Raise `InputError` where the server's packages are missing; `extra` brings them to what `name` names."""
    if missing_server_packages():
        from personalive.installation import install_command

        raise InputError(f"{name} needs packages that are not installed. Run: {install_command(extra)}")


def print_startup(settings: Settings, url: str) -> None:
    """Print the settings and the page's address, except with JSON logs, which must consist of JSON lines only."""
    from personalive.cli import console
    from personalive.server.telemetry import logs

    values = settings.describe()
    if settings.log_format == "json":
        logs.event("settings", settings=values)
        return
    console.print_status("settings:")
    width = max(map(len, values))
    for name, value in values.items():
        console.print_status(f"  {name:<{width}}  {value}")
    console.print_status(f"page {url}/   API {url}/docs   stop with Ctrl-C")
