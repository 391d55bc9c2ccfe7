"""`personalive cluster`: serves from many machines, with Ray."""

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

The settings are those of `personalive serve`: flags, environment variables, a TOML file. Settings that differ
between hosts (PERSONALIVE_PUBLIC_IP, PERSONALIVE_UDP_PORTS, PERSONALIVE_RECORDINGS_DIR) are taken from the
environment of each host's `ray start`. docs/how-to/cluster.md explains clusters by hand and on Kubernetes.
"""

app = typer.Typer(
    name="cluster", help="Serve from a Ray cluster.", no_args_is_help=True, rich_markup_mode="rich"
)

_Address = Annotated[
    str | None,
    typer.Option(metavar="HOST:PORT", help="A node of the cluster. Default: this machine's cluster."),
]
_Replicas = Annotated[int | None, typer.Option(help="Fixed number of replicas. Default: 1.")]
_MinReplicas = Annotated[int | None, typer.Option("--min-replicas", help="Lowest number of replicas.")]
_MaxReplicas = Annotated[
    int | None, typer.Option("--max-replicas", help="Highest number of replicas, scaled with the sessions.")
]
_Gpus = Annotated[float | None, typer.Option(help="GPUs per replica; 0.5 puts two on one GPU. Default: 0.")]
_Cpus = Annotated[float | None, typer.Option(help="CPU cores reserved per replica. Default: 1.")]
_Sessions = Annotated[int | None, typer.Option(help="Concurrent sessions per replica. Default: 1.")]
_UpscaleDelay = Annotated[
    float | None,
    typer.Option(
        "--upscale-delay",
        metavar="SECONDS",
        help="Add replicas after this long without enough free slots. Default: 5.",
    ),
]
_DownscaleDelay = Annotated[
    float | None,
    typer.Option(
        "--downscale-delay",
        metavar="SECONDS",
        help="Remove replicas after this long with idle slots. Default: 300.",
    ),
]
_DrainLimit = Annotated[
    float | None,
    typer.Option(
        "--drain-limit",
        metavar="SECONDS",
        help="How long a replica that stops waits for its last session. Default: 86400.",
    ),
]
_EveryNode = Annotated[
    bool,
    typer.Option("--every-node", help="Listen on every node, for a load balancer. Default: on the head."),
]


@app.callback()
def _group() -> None:
    """Keep the command's name, which Typer would leave out where there is only one command."""


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
    """Serve from all machines of a Ray cluster at one address, as `personalive serve` does from one machine.

    Video goes directly between a client and the machine that animates it. Runs until Ctrl-C.
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
