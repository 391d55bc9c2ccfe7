"""`personalive cluster`: serves from many machines, with Ray."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import typer

from personalive.cli.server_options import CONFIG, read_flags, with_options
from personalive.errors import InputError
from personalive.server.options import CLUSTER_OPTIONS, SERVER_OPTIONS, OptionSpec

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

_NOT_FOR_CLUSTERS = {
    "max_sessions",
    "gpus",
    "public_ip",
    "recordings_dir",
    "header_timeout_s",
    "max_connections",
    "debug_stalls",
}
"""Options of a single server; `--sessions-per-replica` and each host's environment take their place."""
_OPTIONS = {
    "address": OptionSpec(
        str, "A node of the cluster. Default: this machine's cluster.", metavar="HOST:PORT"
    ),
    "replicas": OptionSpec(int, "Fixed number of replicas. Default: 1."),
    **CLUSTER_OPTIONS,
    "config": CONFIG,
    **{name: spec for name, spec in SERVER_OPTIONS.items() if name not in _NOT_FOR_CLUSTERS},
}


@app.callback()
def _group() -> None:
    """Keep the command's name, which Typer would leave out where there is only one command."""


@app.command(epilog=EPILOG)
@with_options(_OPTIONS)
def serve(*, address: str | None = None, config: Path | None = None, **given: Any) -> None:
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

    flags = read_flags(given)
    plan = read_cluster_config(flags)
    serve_cluster(plan, read_settings(flags, config), address, console.print_status)
