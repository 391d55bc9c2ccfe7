"""`personalive serve`: flags in, a server that runs until it is told to stop."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from personalive.errors import InputError

if TYPE_CHECKING:
    from personalive.serving.settings import Settings

EPILOG = """Examples:

personalive serve

personalive serve --pipeline preview --set width=512 --set height=512 --reference portrait.jpg

PERSONALIVE_API_KEY=$(openssl rand -hex 32) personalive serve --host 0.0.0.0 --udp-ports 50000-50100

personalive serve --config server.toml --log-format json

Every flag is also a variable of the environment (PERSONALIVE_MAX_SESSIONS=4) and a line of the TOML file
(max_sessions = 4); flags weigh most, then the environment, then the file. Give keys and passwords by the
environment or the file: other users of this machine can see flags.

It serves this machine alone until --host says otherwise, and then wants a key. For HTTPS put nginx or Caddy
before it; docs/serving.md has both, and how media gets through firewalls.
"""

PACKAGES = ("aiortc", "fastapi", "uvicorn", "pydantic_settings", "prometheus_client")
INSTALL = "pip install -c constraints.txt '.[server]'"

_Config = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="TOML file of settings. Also PERSONALIVE_CONFIG."),
]
_Host = Annotated[
    str | None, typer.Option(help="Address to listen at; 0.0.0.0 is every one. Default: 127.0.0.1.")
]
_Port = Annotated[
    int | None, typer.Option("--port", "-p", help="TCP port; 0 takes a free one. Default: 8000.")
]
_Key = Annotated[
    str | None,
    typer.Option("--api-key", metavar="KEY", help="Key that clients send as `Authorization: Bearer KEY`."),
]
_Insecure = Annotated[
    bool | None,
    typer.Option("--insecure/--no-insecure", help="Serve without a key even beyond this machine."),
]
_Origins = Annotated[
    list[str] | None,
    typer.Option(
        "--cors-origin", metavar="ORIGIN", help="A web origin whose pages may call it; may be repeated."
    ),
]
_Sessions = Annotated[int | None, typer.Option(help="Sessions at a time. Default: 1.")]
_Pipeline = Annotated[
    str | None, typer.Option(help="Load this pipeline at the start. `personalive pipelines` lists them.")
]
_Parameters = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="A load parameter of the pipeline; may be repeated."),
]
_Reference = Annotated[
    Path | None, typer.Option(metavar="FILE", help="The portrait to begin with. Goes with --pipeline.")
]
_Stun = Annotated[
    list[str] | None, typer.Option("--stun-url", metavar="URL", help="stun:HOST:PORT; may be repeated.")
]
_Turn = Annotated[
    list[str] | None, typer.Option("--turn-url", metavar="URL", help="turn:HOST:PORT; may be repeated.")
]
_TurnUser = Annotated[str | None, typer.Option("--turn-username", help="User of the TURN servers.")]
_TurnPassword = Annotated[str | None, typer.Option("--turn-password", help="That user's fixed password.")]
_TurnSecret = Annotated[
    str | None, typer.Option("--turn-secret", help="Secret shared with them, for credentials that end.")
]
_TurnTtl = Annotated[
    int | None,
    typer.Option("--turn-ttl", metavar="SECONDS", help="How long those are good for. Default: 3600."),
]
_Ports = Annotated[
    str | None, typer.Option("--udp-ports", metavar="A-B", help="UDP ports for media. Default: any.")
]
_PublicIp = Annotated[
    str | None, typer.Option("--public-ip", metavar="IP", help="The address that the world sees, behind NAT.")
]
_Recordings = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Folder of recordings. Default: recordings in $PERSONALIVE_HOME."),
]
_Watermark = Annotated[
    bool | None,
    typer.Option("--watermark/--no-watermark", help='Write "AI generated" into a corner of every frame.'),
]
_LogFormat = Annotated[str | None, typer.Option(help="text or json. Default: text.")]
_LogLevel = Annotated[str | None, typer.Option(help="debug, info, warning or error. Default: info.")]
_Connect = Annotated[
    float | None,
    typer.Option(
        "--connect-timeout", metavar="SECONDS", help="End a session that never connects. Default: 20."
    ),
]
_Idle = Annotated[
    float | None,
    typer.Option("--idle-timeout", metavar="SECONDS", help="End a session without video. Default: 30."),
]
_Body = Annotated[
    float | None,
    typer.Option("--body-timeout", metavar="SECONDS", help="Time for a request's body. Default: 20."),
]
_Drain = Annotated[
    float | None,
    typer.Option("--drain", metavar="SECONDS", help="Time for sessions to end when stopped. Default: 7."),
]
_Stalls = Annotated[bool | None, typer.Option("--debug-stalls", hidden=True)]


def serve(
    *,
    config: _Config = None,
    host: _Host = None,
    port: _Port = None,
    api_key: _Key = None,
    insecure: _Insecure = None,
    cors_origins: _Origins = None,
    max_sessions: _Sessions = None,
    pipeline: _Pipeline = None,
    load_params: _Parameters = None,
    reference: _Reference = None,
    stun_urls: _Stun = None,
    turn_urls: _Turn = None,
    turn_username: _TurnUser = None,
    turn_password: _TurnPassword = None,
    turn_secret: _TurnSecret = None,
    turn_ttl_s: _TurnTtl = None,
    udp_ports: _Ports = None,
    public_ip: _PublicIp = None,
    recordings_dir: _Recordings = None,
    watermark: _Watermark = None,
    log_format: _LogFormat = None,
    log_level: _LogLevel = None,
    connect_timeout_s: _Connect = None,
    idle_timeout_s: _Idle = None,
    body_timeout_s: _Body = None,
    drain_s: _Drain = None,
    debug_stalls: _Stalls = None,
) -> None:
    """Serve portraits that follow a live camera, over HTTP and WebRTC.

    Load a pipeline, post a portrait, open a session: the page at the address it prints says how.
    """
    given = dict(locals())
    from personalive.cli.settings import parse_settings

    _require_packages()
    from personalive.serving.run import serve as run
    from personalive.serving.settings import read_settings

    del given["config"]
    flags = {name: value for name, value in given.items() if value is not None and value != []}
    if load_params:
        flags["load_params"] = parse_settings(load_params)
    settings = read_settings(flags, config)
    run(settings, on_start=lambda url: _tell(settings, url))


def _require_packages() -> None:
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"The server needs packages that are not installed. Run: {INSTALL}")


def _tell(settings: Settings, url: str) -> None:
    """What it runs with and where to go. Programs that read the log as JSON get lines of JSON only."""
    from personalive.cli import console
    from personalive.serving.observing import logs

    told = settings.describe()
    if settings.log_format == "json":
        logs.event("settings", settings=told)
        return
    console.say("settings:")
    width = max(map(len, told))
    for name, value in told.items():
        console.say(f"  {name:<{width}}  {value}")
    console.say(f"page {url}/   API {url}/docs   stop with Ctrl-C")
