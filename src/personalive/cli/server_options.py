"""The flags of the server, for every command that starts one."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import typer

from personalive.cli.set_options import parse_settings

Command = TypeVar("Command", bound=Callable[..., None])


def flag(kind: Any, *names: str, **options: Any) -> tuple[Any, Any]:
    """Return the type and the option of a flag of this kind, for `take_flags`."""
    return kind | None, typer.Option(None, *names, **options)


FLAGS: dict[str, tuple[Any, Any]] = {
    "config": flag(Path, "--config", metavar="FILE", help="TOML file of settings. Also PERSONALIVE_CONFIG."),
    "host": flag(str, help="Address to listen on; 0.0.0.0 is all addresses. Default: 127.0.0.1."),
    "port": flag(int, "--port", "-p", help="TCP port; 0 chooses a free one. Default: 8000."),
    "api_key": flag(
        str, "--api-key", metavar="KEY", help="Key that clients send as `Authorization: Bearer KEY`."
    ),
    "insecure": flag(bool, "--insecure/--no-insecure", help="Serve without a key even beyond this machine."),
    "cors_origins": flag(
        list[str],
        "--cors-origin",
        metavar="ORIGIN",
        help="A web origin whose pages may call the server; may be repeated.",
    ),
    "max_sessions": flag(int, help="Concurrent sessions on each GPU. Default: 1."),
    "max_viewers": flag(int, help="Concurrent viewers over WHEP. Default: 16."),
    "gpus": flag(
        list[str],
        "--gpus",
        metavar="N,N",
        help="GPUs to serve from, by nvidia-smi's numbers, or all. Each has its own pipeline and sessions. "
        "Default: the first.",
    ),
    "pipeline": flag(str, help="Load this pipeline at startup. `personalive pipelines` lists them."),
    "load_params": flag(
        list[str], "--set", metavar="NAME=VALUE", help="A load parameter of the pipeline; may be repeated."
    ),
    "reference": flag(Path, metavar="FILE", help="The first portrait. Needs --pipeline."),
    "stun_urls": flag(list[str], "--stun-url", metavar="URL", help="stun:HOST:PORT; may be repeated."),
    "turn_urls": flag(list[str], "--turn-url", metavar="URL", help="turn:HOST:PORT; may be repeated."),
    "turn_username": flag(str, "--turn-username", help="User name for the TURN servers."),
    "turn_password": flag(str, "--turn-password", help="Fixed password for the TURN servers."),
    "turn_secret": flag(
        str, "--turn-secret", help="Secret shared with the TURN servers, for temporary credentials."
    ),
    "turn_ttl_s": flag(
        int, "--turn-ttl", metavar="SECONDS", help="Lifetime of temporary TURN credentials. Default: 3600."
    ),
    "udp_ports": flag(str, "--udp-ports", metavar="A-B", help="UDP ports for media. Default: any."),
    "public_ip": flag(str, "--public-ip", metavar="IP", help="The public address of a server behind NAT."),
    "recordings_dir": flag(
        Path, metavar="DIR", help="Folder for recordings. Default: recordings in $PERSONALIVE_HOME."
    ),
    "watermark": flag(
        bool, "--watermark/--no-watermark", help='Write "AI generated" into a corner of every frame.'
    ),
    "log_format": flag(str, help="text or json. Default: text."),
    "log_level": flag(str, help="debug, info, warning or error. Default: info."),
    "connect_timeout_s": flag(
        float, "--connect-timeout", metavar="SECONDS", help="End a session that never connects. Default: 20."
    ),
    "idle_timeout_s": flag(
        float, "--idle-timeout", metavar="SECONDS", help="End a session without video. Default: 30."
    ),
    "body_timeout_s": flag(
        float, "--body-timeout", metavar="SECONDS", help="Longest pause in a request's body. Default: 20."
    ),
    "header_timeout_s": flag(
        float, "--header-timeout", metavar="SECONDS", help="Time for a request's headers. Default: 10."
    ),
    "max_connections": flag(
        int,
        "--max-connections",
        metavar="N",
        help="Concurrent HTTP connections from one address. Default: 128.",
    ),
    "drain_s": flag(
        float,
        "--drain",
        metavar="SECONDS",
        help="Time for sessions to end when the server stops. Default: 7.",
    ),
    "debug_stalls": flag(bool, "--debug-stalls", hidden=True),
}
"""The type and option of each flag, by the name of its setting; `config` is the file of settings."""


def take_flags(flags: Mapping[str, tuple[Any, Any]]) -> Callable[[Command], Command]:
    """Make a command take these flags beside its own: keyword arguments, None where they are not given."""

    def decorate(command: Command) -> Command:
        own = inspect.signature(command, eval_str=True).parameters.values()
        parameters = [each for each in own if each.kind is not inspect.Parameter.VAR_KEYWORD]
        parameters += (
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=option, annotation=kind)
            for name, (kind, option) in flags.items()
        )
        command.__annotations__ = {each.name: each.annotation for each in parameters}
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return command

    return decorate


def drop_unset(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of the flags that were given, without `config`."""
    given = {name: value for name, value in flags.items() if value not in (None, []) and name != "config"}
    return given | ({"load_params": parse_settings(given["load_params"])} if "load_params" in given else {})
