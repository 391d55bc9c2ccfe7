"""`personalive serve`: runs a server until it is stopped."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import TYPE_CHECKING

from personalive.cli import server_options as options
from personalive.errors import InputError

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

SERVER_PACKAGES = ("aiortc", "fastapi", "uvicorn", "pydantic_settings", "prometheus_client")


def serve(
    *,
    config: options.Config = None,
    host: options.Host = None,
    port: options.Port = None,
    api_key: options.Key = None,
    insecure: options.Insecure = None,
    cors_origins: options.Origins = None,
    max_sessions: options.Sessions = None,
    max_viewers: options.Viewers = None,
    gpus: options.Gpus = None,
    pipeline: options.Pipeline = None,
    load_params: options.Parameters = None,
    reference: options.Reference = None,
    stun_urls: options.Stun = None,
    turn_urls: options.Turn = None,
    turn_username: options.TurnUser = None,
    turn_password: options.TurnPassword = None,
    turn_secret: options.TurnSecret = None,
    turn_ttl_s: options.TurnTtl = None,
    udp_ports: options.Ports = None,
    public_ip: options.PublicIp = None,
    recordings_dir: options.Recordings = None,
    watermark: options.Watermark = None,
    log_format: options.LogFormat = None,
    log_level: options.LogLevel = None,
    connect_timeout_s: options.Connect = None,
    idle_timeout_s: options.Idle = None,
    body_timeout_s: options.Body = None,
    header_timeout_s: options.Header = None,
    max_connections: options.Connections = None,
    drain_s: options.Drain = None,
    debug_stalls: options.Stalls = None,
) -> None:
    """Serve portraits that follow a live camera, over HTTP and WebRTC.

    It prints the address of its page, which shows how to load a pipeline, choose a portrait and open a session.
    """
    given = dict(locals())
    from personalive.cli.set_options import parse_settings

    require_server_packages()
    from personalive.server.run import run_server
    from personalive.server.settings import read_settings

    del given["config"]
    if gpus:
        given["gpus"] = ",".join(gpus)
    flags = drop_unset(given) | ({"load_params": parse_settings(load_params)} if load_params else {})
    settings = read_settings(flags, config)
    run_server(settings, on_start=lambda url: print_startup(settings, url))


def drop_unset(flags: Mapping[str, object]) -> dict[str, object]:
    """Return the flags that were given."""
    return {name: value for name, value in flags.items() if value is not None and value != []}


def require_server_packages(extra: str = "server", name: str = "The server") -> None:
    """Raise `InputError` where the server's packages are missing; `extra` brings them to what `name` names."""
    missing = [name for name in SERVER_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        from personalive.installation import install_command

        raise InputError(f"{name} needs packages that are not installed. Run: {install_command(extra)}")


def print_startup(settings: Settings, url: str) -> None:
    """Print the settings and the page's address, except with JSON logs, which must consist of JSON lines only."""
    from personalive.cli import console
    from personalive.server.telemetry import logs

    told = settings.describe()
    if settings.log_format == "json":
        logs.event("settings", settings=told)
        return
    console.print_status("settings:")
    width = max(map(len, told))
    for name, value in told.items():
        console.print_status(f"  {name:<{width}}  {value}")
    console.print_status(f"page {url}/   API {url}/docs   stop with Ctrl-C")
