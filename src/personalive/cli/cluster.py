"""`personalive cluster`: the same work on many machines, by Ray."""

from __future__ import annotations

import importlib.util
from typing import Annotated

import typer

from personalive.cli import server_options as options
from personalive.errors import InputError

EPILOG = """Examples:

ray start --head

personalive cluster serve --pipeline preview --replicas 2 --sessions-per-replica 4

personalive cluster serve --pipeline personalive --gpus-per-replica 1 --min-replicas 1 --max-replicas 8

The settings are those of `personalive serve`: flags, variables of the environment, a TOML file. What a host has of
its own (PERSONALIVE_PUBLIC_IP, PERSONALIVE_UDP_PORTS, PERSONALIVE_RECORDINGS_DIR) is taken from the environment of
its `ray start`. docs/how-to/cluster.md has clusters by hand and on Kubernetes.
"""

app = typer.Typer(
    name="cluster", help="Serve from a Ray cluster.", no_args_is_help=True, rich_markup_mode="rich"
)

_Address = Annotated[
    str | None,
    typer.Option(metavar="HOST:PORT", help="A node of the cluster. Default: the one this machine is in."),
]
_Replicas = Annotated[int | None, typer.Option(help="Replicas, always so many. Default: 1.")]
_MinReplicas = Annotated[int | None, typer.Option("--min-replicas", help="Replicas that are always there.")]
_MaxReplicas = Annotated[
    int | None, typer.Option("--max-replicas", help="Replicas that there may be, as sessions come and go.")
]
_Gpus = Annotated[float | None, typer.Option(help="GPUs of a replica; 0.5 puts two on one GPU. Default: 0.")]
_Cpus = Annotated[float | None, typer.Option(help="Cores that a replica reserves. Default: 1.")]
_Sessions = Annotated[int | None, typer.Option(help="Sessions at a time on a replica. Default: 1.")]
_UpscaleDelay = Annotated[
    float | None,
    typer.Option("--upscale-delay", metavar="SECONDS", help="Slots scarce for so long: more. Default: 5."),
]
_DownscaleDelay = Annotated[
    float | None,
    typer.Option("--downscale-delay", metavar="SECONDS", help="Slots idle for so long: fewer. Default: 300."),
]
_DrainLimit = Annotated[
    float | None,
    typer.Option(
        "--drain-limit",
        metavar="SECONDS",
        help="How long a replica that is to go waits for its last session. Default: 86400.",
    ),
]
_EveryNode = Annotated[
    bool, typer.Option("--every-node", help="Listen on every node, for a load balancer; else on the head.")
]


@app.callback()
def _group() -> None:
    """One command for now; Typer would otherwise leave its name out."""


@app.command(epilog=EPILOG)
def serve(
    *,
    address: _Address = None,
    replicas: _Replicas = None,
    min_replicas: _MinReplicas = None,
    max_replicas: _MaxReplicas = None,
    gpus_per_replica: _Gpus = None,
    cpus_per_replica: _Cpus = None,
    sessions_per_replica: _Sessions = None,
    upscale_delay_s: _UpscaleDelay = None,
    downscale_delay_s: _DownscaleDelay = None,
    drain_limit_s: _DrainLimit = None,
    every_node: _EveryNode = False,
    config: options.Config = None,
    host: options.Host = None,
    port: options.Port = None,
    api_key: options.Key = None,
    insecure: options.Insecure = None,
    cors_origins: options.Origins = None,
    max_viewers: options.Viewers = None,
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
    watermark: options.Watermark = None,
    log_format: options.LogFormat = None,
    log_level: options.LogLevel = None,
    connect_timeout_s: options.Connect = None,
    idle_timeout_s: options.Idle = None,
    body_timeout_s: options.Body = None,
    drain_s: options.Drain = None,
) -> None:
    """Serve from every machine of a Ray cluster, at one address: what `personalive serve` is on one.

    Video goes straight between a client and the machine that animates it. Runs until Ctrl-C.
    """
    given = dict(locals())
    from personalive.cli import console
    from personalive.cli.serve import drop_unset, require_server_packages
    from personalive.cli.set_options import parse_settings

    require_server_packages()
    if importlib.util.find_spec("ray") is None:
        from personalive.installation import install_command

        raise InputError(
            f"A cluster needs Ray, which is not installed. Run: {install_command('server', 'cluster')}"
        )
    from personalive.server.cluster.config import read_cluster_config
    from personalive.server.cluster.run import serve_cluster
    from personalive.server.settings import read_settings

    for name in ("config", "address"):
        del given[name]
    flags = drop_unset(given) | ({"load_params": parse_settings(load_params)} if load_params else {})
    plan = read_cluster_config(flags)
    serve_cluster(plan, read_settings(flags, config), address, console.print_status)
