"""A Ray cluster of several nodes on this machine, and `personalive cluster serve` on it."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.server.client import PORTRAIT
from tests.server.running import PLUGIN, ROOT, RunningServer, running
from tests.signals import KILL

START_LIMIT = 180.0
LEAVE_LIMIT = 90.0
SMALL = {"width": 256, "height": 256}

_RAY = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "OMP_NUM_THREADS": "1",
    # So that it is told within a second how many sessions there are, not within ten.
    "RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
    "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
    "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_RECORD_INTERVAL_S": "0.5",
    "RAY_SERVE_HANDLE_AUTOSCALING_METRIC_RECORD_INTERVAL_S": "0.5",
}


class Nodes:
    """The head and the nodes that join it. Each has the GPUs it says, on any machine."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self._cluster: Any = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 0, "include_dashboard": False}
        )
        self._others: list[Any] = []
        self._logs = Path(self._cluster.head_node.get_logs_dir_path()).resolve() / "serve"

    @property
    def address(self) -> str:
        """Where to join it."""
        return str(self._cluster.address)

    def add(self, gpus: int = 1) -> None:
        """One more node."""
        self._others.append(self._cluster.add_node(num_cpus=1, num_gpus=gpus))

    def stopped(self) -> set[str]:
        """The replicas that Serve's controller has begun to stop, by its log."""
        text = "".join(path.read_text() for path in self._logs.glob("controller_*.log"))
        return set(re.findall(r"Stopping Replica\(id='(\w+)', deployment='Replica'", text))

    def process_of(self, part: str) -> int:
        """The process that writes the log of a replica, by its id, or of the `Ingress` or `Controller`."""
        for process in Path("/proc").iterdir():
            if process.name.isdigit():
                with contextlib.suppress(OSError):
                    open_files = [str(handle.readlink()) for handle in (process / "fd").iterdir()]
                    if any(name.startswith(f"{self._logs}/replica_") and part in name for name in open_files):
                        return int(process.name)
        raise LookupError(f"no process writes the log of {part}")

    def kill_process(self, part: str) -> None:
        """End the process of a replica, the `Ingress` or the `Controller`, without a word."""
        os.kill(self.process_of(part), KILL)

    def kill_node_of(self, replica: str) -> None:
        """End the node that this replica runs on, with all that runs there, at once."""
        status = Path(f"/proc/{self.process_of(replica)}/status").read_text()
        parent = int(re.findall(r"^PPid:\s*(\d+)", status, re.MULTILINE)[0])
        (node,) = (one for one in self._others if one.all_processes["raylet"][0].process.pid == parent)
        self._others.remove(node)
        self._cluster.remove_node(node, allow_graceful=False)

    def close(self) -> None:
        """End all of it."""
        self._cluster.shutdown()


@contextlib.contextmanager
def cluster(nodes: int, gpus: int = 1) -> Iterator[Nodes]:
    """A head without GPUs, and nodes with some. Their processes find this checkout and its plugins."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in _RAY.items():
            patch.setenv(name, value)
        for name in list(os.environ):
            if name.startswith("PERSONALIVE_") and name != "PERSONALIVE_HOME":
                patch.delenv(name)
        path = [str(PLUGIN), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, path)))
        found = Nodes()
        try:
            for _ in range(nodes):
                found.add(gpus)
            yield found
        finally:
            found.close()


@contextlib.contextmanager
def served(
    nodes: Nodes,
    *arguments: object,
    settings: Mapping[str, object] | None = None,
    key: str | None = None,
) -> Iterator[RunningServer]:
    """The service on that cluster: the tests' pipeline at the start, unless the settings say otherwise.

    With a `key`, that is what it wants, and what is asked of it here carries it.
    """
    own = {} if key is None else {"api_key": key}
    chosen = {"pipeline": "paced", "load_params": SMALL, **own, **(settings or {})}
    told = [str(argument) for argument in ("--address", nodes.address, *arguments)]
    with running(
        chosen,
        *told,
        command=("cluster", "serve"),
        environment=_RAY,
        start_limit=START_LIMIT,
        leave_limit=LEAVE_LIMIT,
    ) as server:
        if key is not None:
            server.identify(key)
        wait_for(lambda: server.get("/health/ready").status_code == 200, START_LIMIT)
        yield server


def give_reference(server: RunningServer) -> None:
    """The sample portrait becomes the default."""
    answer = server.post("/api/v1/personalive/reference", content=PORTRAIT.read_bytes())
    assert answer.status_code == 200, answer.text


def replicas(server: RunningServer) -> list[dict[str, Any]]:
    """What is told of each."""
    found: list[dict[str, Any]] = server.get("/api/v1/cluster").json()["replicas"]
    return found


def serving(server: RunningServer) -> set[str]:
    """The replicas that take sessions."""
    return {each["id"] for each in replicas(server) if each["stage"] == "serving"}


def wait_for(true: Any, limit: float) -> None:
    """Until it is. Raises `TimeoutError`."""
    until = time.monotonic() + limit
    while not true():
        if time.monotonic() > until:
            raise TimeoutError(f"it did not become true within {limit:g} s")
        time.sleep(0.1)
