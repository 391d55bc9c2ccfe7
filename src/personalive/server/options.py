"""The options of the server and of a cluster: for each the type and text of its flag, and its default.

The command line makes flags of them, also where the server's packages are missing, and `Settings` and
`ClusterConfig` make fields of them. So this module imports pydantic only
once `make_field` is called.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class OptionSpec:
    """An option. `type` is that of its flag, and `flag` the flag's name, by default the option's without `_s`.

    `description` describes the setting where `text` says too little without the flag beside it.
    """

    type: Any
    text: str
    default: Any = None
    metavar: str | None = None
    flag: str | None = None
    short_flag: str | None = None
    hidden: bool = False
    description: str | None = None

    @property
    def help(self) -> str:
        """The text, with the default where that is a number or a word."""
        if self.default is None or isinstance(self.default, bool | tuple):
            return self.text
        shown = f"{self.default:g}" if isinstance(self.default, float) else self.default
        return f"{self.text} Default: {shown}."


def make_field(options: Mapping[str, OptionSpec], name: str, **constraints: Any) -> Any:
    """Return an option's field of a pydantic model; `constraints` are arguments of `pydantic.Field`."""
    from pydantic import Field

    spec = options[name]
    if "default_factory" not in constraints:
        constraints.setdefault("default", spec.default)
    return Field(description=spec.description or spec.text, **constraints)


def _strings(text: str, flag: str, metavar: str, description: str | None = None) -> OptionSpec:
    return OptionSpec(list[str], text, (), metavar, flag, description=description)


def _seconds(text: str, default: float, description: str | None = None) -> OptionSpec:
    return OptionSpec(type(default), text, default, "SECONDS", description=description)


SERVER_OPTIONS: Mapping[str, OptionSpec] = {
    "host": OptionSpec(str, "Address to listen on; 0.0.0.0 is all addresses.", "127.0.0.1"),
    "port": OptionSpec(int, "TCP port; 0 chooses a free one.", 8000, short_flag="-p"),
    "api_key": OptionSpec(str, "Key that clients send as `Authorization: Bearer KEY`.", metavar="KEY"),
    "insecure": OptionSpec(bool, "Serve without a key even beyond this machine.", False),
    "cors_origins": _strings(
        "A web origin whose pages may call the server; may be repeated.", "--cors-origin", "ORIGIN"
    ),
    "max_sessions": OptionSpec(int, "Concurrent sessions on each GPU.", 1),
    "max_viewers": OptionSpec(int, "Concurrent viewers over WHEP.", 16),
    "gpus": _strings(
        "GPUs to serve from, by nvidia-smi's numbers, or all. Each has its own pipeline and sessions. "
        "Default: the first.",
        "--gpus",
        "N,N",
    ),
    "pipeline": OptionSpec(str, "Load this pipeline at startup. `personalive pipelines` lists them."),
    "load_params": _strings("A load parameter of the pipeline; may be repeated.", "--set", "NAME=VALUE"),
    "reference": OptionSpec(Path, "The first portrait. Needs --pipeline.", metavar="FILE"),
    "stun_urls": _strings(
        "stun:HOST:PORT; may be repeated.", "--stun-url", "URL", "STUN servers, as stun:HOST:PORT."
    ),
    "turn_urls": _strings(
        "turn:HOST:PORT; may be repeated.", "--turn-url", "URL", "TURN servers, as turn:HOST:PORT."
    ),
    "turn_username": OptionSpec(str, "User name for the TURN servers."),
    "turn_password": OptionSpec(str, "Fixed password for the TURN servers."),
    "turn_secret": OptionSpec(str, "Secret shared with the TURN servers, for temporary credentials."),
    "turn_ttl_s": _seconds("Lifetime of temporary TURN credentials.", 3600),
    "udp_ports": OptionSpec(str, "UDP ports for media. Default: any.", metavar="A-B"),
    "public_ip": OptionSpec(str, "The public address of a server behind NAT.", metavar="IP"),
    "recordings_dir": OptionSpec(
        Path, "Folder for recordings. Default: recordings in $PERSONALIVE_HOME.", metavar="DIR"
    ),
    "watermark": OptionSpec(bool, 'Write "AI generated" into a corner of every frame.', False),
    "log_format": OptionSpec(str, "text or json.", "text", description="How log lines look."),
    "log_level": OptionSpec(str, "debug, info, warning or error.", "info", description="What is logged."),
    "connect_timeout_s": _seconds("End a session that never connects.", 20.0),
    "idle_timeout_s": _seconds("End a session without video.", 30.0),
    "body_timeout_s": _seconds(
        "Longest pause in a request's body.",
        20.0,
        "Seconds within which a request's body must begin, and its longest pause.",
    ),
    "header_timeout_s": _seconds("Time for a request's headers.", 10.0),
    "max_connections": OptionSpec(
        int,
        "Concurrent HTTP connections from one address.",
        128,
        "N",
        description="HTTP connections at a time from one address; idle ones make room.",
    ),
    "drain_s": _seconds("Time for sessions to end when the server stops.", 7.0),
    "debug_stalls": OptionSpec(
        bool, "Measure how long the event loop is blocked.", False, flag="--debug-stalls", hidden=True
    ),
}
"""The options of `personalive serve`, by the names of `Settings`."""

CLUSTER_OPTIONS: Mapping[str, OptionSpec] = {
    "min_replicas": OptionSpec(int, "Lowest number of replicas."),
    "max_replicas": OptionSpec(int, "Highest number of replicas, scaled with the sessions."),
    "gpus_per_replica": OptionSpec(float, "GPUs per replica; 0.5 puts two on one GPU.", 0.0),
    "cpus_per_replica": OptionSpec(float, "CPU cores reserved per replica.", 1.0),
    "sessions_per_replica": OptionSpec(int, "Concurrent sessions per replica.", 1),
    "upscale_delay_s": _seconds("Add replicas after this long without enough free slots.", 5.0),
    "downscale_delay_s": _seconds("Remove replicas after this long with idle slots.", 300.0),
    "drain_limit_s": _seconds("How long a replica that stops waits for its last session.", 86_400.0),
    "every_node": OptionSpec(
        bool, "Listen on every node, for a load balancer. Default: on the head.", False, flag="--every-node"
    ),
}
"""The options that only `personalive cluster serve` has, by the names of `ClusterConfig`."""
