"""`personalive cluster`: serves from many machines, with Ray."""

from __future__ import annotations

import importlib.util
from typing import Any

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

_FLAGS = {
    "address": options.flag(
        str, metavar="HOST:PORT", help="A node of the cluster. Default: this machine's cluster."
    ),
    "replicas": options.flag(int, help="Fixed number of replicas. Default: 1."),
    "min_replicas": options.flag(int, "--min-replicas", help="Lowest number of replicas."),
    "max_replicas": options.flag(
        int, "--max-replicas", help="Highest number of replicas, scaled with the sessions."
    ),
    "gpus_per_replica": options.flag(float, help="GPUs per replica; 0.5 puts two on one GPU. Default: 0."),
    "cpus_per_replica": options.flag(float, help="CPU cores reserved per replica. Default: 1."),
    "sessions_per_replica": options.flag(int, help="Concurrent sessions per replica. Default: 1."),
    "upscale_delay_s": options.flag(
        float,
        "--upscale-delay",
        metavar="SECONDS",
        help="Add replicas after this long without enough free slots. Default: 5.",
    ),
    "downscale_delay_s": options.flag(
        float,
        "--downscale-delay",
        metavar="SECONDS",
        help="Remove replicas after this long with idle slots. Default: 300.",
    ),
    "drain_limit_s": options.flag(
        float,
        "--drain-limit",
        metavar="SECONDS",
        help="How long a replica that stops waits for its last session. Default: 86400.",
    ),
    "every_node": options.flag(
        bool, "--every-node", help="Listen on every node, for a load balancer. Default: on the head."
    ),
}
_OF_ONE_MACHINE = {
    "max_sessions",
    "gpus",
    "public_ip",
    "recordings_dir",
    "header_timeout_s",
    "max_connections",
    "debug_stalls",
}
"""Flags of `personalive serve` that a cluster does not take."""


@app.callback()
def _group() -> None:
    """Keep the command's name, which Typer would leave out where there is only one command."""


@app.command(epilog=EPILOG)
@options.take_flags(
    _FLAGS | {name: flag for name, flag in options.FLAGS.items() if name not in _OF_ONE_MACHINE}
)
def serve(**flags: Any) -> None:
    """Serve from all machines of a Ray cluster at one address, as `personalive serve` does from one machine.

    Video goes directly between a client and the machine that animates it. Runs until Ctrl-C.
    """
    from personalive.cli import console
    from personalive.cli.serve import require_server_packages

    require_server_packages()
    if importlib.util.find_spec("ray") is None:
        from personalive.installation import install_command

        raise InputError(
            f"A cluster needs Ray, which is not installed. Run: {install_command('server', 'cluster')}"
        )
    from personalive.server.cluster.config import read_cluster_config
    from personalive.server.cluster.run import serve_cluster
    from personalive.server.settings import read_settings

    address = flags.pop("address")
    given = options.drop_unset(flags)
    plan = read_cluster_config(given)
    serve_cluster(plan, read_settings(given, flags["config"]), address, console.print_status)
