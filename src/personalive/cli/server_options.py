"""The flags of the server, for every command that starts one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Config = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="TOML file of settings. Also PERSONALIVE_CONFIG."),
]
Host = Annotated[
    str | None, typer.Option(help="Address to listen on; 0.0.0.0 is all addresses. Default: 127.0.0.1.")
]
Port = Annotated[
    int | None, typer.Option("--port", "-p", help="TCP port; 0 chooses a free one. Default: 8000.")
]
Key = Annotated[
    str | None,
    typer.Option("--api-key", metavar="KEY", help="Key that clients send as `Authorization: Bearer KEY`."),
]
Insecure = Annotated[
    bool | None,
    typer.Option("--insecure/--no-insecure", help="Serve without a key even beyond this machine."),
]
Origins = Annotated[
    list[str] | None,
    typer.Option(
        "--cors-origin",
        metavar="ORIGIN",
        help="A web origin whose pages may call the server; may be repeated.",
    ),
]
Sessions = Annotated[int | None, typer.Option(help="Concurrent sessions on each GPU. Default: 1.")]
Viewers = Annotated[int | None, typer.Option(help="Concurrent viewers over WHEP. Default: 16.")]
Gpus = Annotated[
    list[str] | None,
    typer.Option(
        "--gpus",
        metavar="N,N",
        help="GPUs to serve from, by nvidia-smi's numbers, or all. Each has its own pipeline and sessions. "
        "Default: the first.",
    ),
]
Pipeline = Annotated[
    str | None, typer.Option(help="Load this pipeline at startup. `personalive pipelines` lists them.")
]
Parameters = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="A load parameter of the pipeline; may be repeated."),
]
Reference = Annotated[Path | None, typer.Option(metavar="FILE", help="The first portrait. Needs --pipeline.")]
Stun = Annotated[
    list[str] | None, typer.Option("--stun-url", metavar="URL", help="stun:HOST:PORT; may be repeated.")
]
Turn = Annotated[
    list[str] | None, typer.Option("--turn-url", metavar="URL", help="turn:HOST:PORT; may be repeated.")
]
TurnUser = Annotated[str | None, typer.Option("--turn-username", help="User name for the TURN servers.")]
TurnPassword = Annotated[
    str | None, typer.Option("--turn-password", help="Fixed password for the TURN servers.")
]
TurnSecret = Annotated[
    str | None,
    typer.Option("--turn-secret", help="Secret shared with the TURN servers, for temporary credentials."),
]
TurnTtl = Annotated[
    int | None,
    typer.Option(
        "--turn-ttl", metavar="SECONDS", help="Lifetime of temporary TURN credentials. Default: 3600."
    ),
]
Ports = Annotated[
    str | None, typer.Option("--udp-ports", metavar="A-B", help="UDP ports for media. Default: any.")
]
PublicIp = Annotated[
    str | None, typer.Option("--public-ip", metavar="IP", help="The public address of a server behind NAT.")
]
Recordings = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Folder for recordings. Default: recordings in $PERSONALIVE_HOME."),
]
Watermark = Annotated[
    bool | None,
    typer.Option("--watermark/--no-watermark", help='Write "AI generated" into a corner of every frame.'),
]
LogFormat = Annotated[str | None, typer.Option(help="text or json. Default: text.")]
LogLevel = Annotated[str | None, typer.Option(help="debug, info, warning or error. Default: info.")]
Connect = Annotated[
    float | None,
    typer.Option(
        "--connect-timeout", metavar="SECONDS", help="End a session that never connects. Default: 20."
    ),
]
Idle = Annotated[
    float | None,
    typer.Option("--idle-timeout", metavar="SECONDS", help="End a session without video. Default: 30."),
]
Body = Annotated[
    float | None,
    typer.Option("--body-timeout", metavar="SECONDS", help="Longest pause in a request's body. Default: 20."),
]
Header = Annotated[
    float | None,
    typer.Option("--header-timeout", metavar="SECONDS", help="Time for a request's headers. Default: 10."),
]
Connections = Annotated[
    int | None,
    typer.Option(
        "--max-connections", metavar="N", help="Concurrent HTTP connections from one address. Default: 128."
    ),
]
Drain = Annotated[
    float | None,
    typer.Option(
        "--drain", metavar="SECONDS", help="Time for sessions to end when the server stops. Default: 7."
    ),
]
Stalls = Annotated[bool | None, typer.Option("--debug-stalls", hidden=True)]
