"""A worker on a Ray cluster: an actor that lives as long as the batch, with one pipeline loaded.

Ray makes an actor of this class; here it is plain, so that whoever imports it needs no Ray.
"""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version

from personalive.cluster.batch.work import Outcome, Standing, Task, open_bench


@dataclass(frozen=True, slots=True)
class Hello:
    """Who a worker is."""

    name: str
    """Host and process, for people."""
    node: str
    """Ray's id of the machine."""
    version: str
    """Of personalive there."""


class RayWorker:
    """Does one job at a time; another thread may ask meanwhile how far it is."""

    def __init__(self, cache_bytes: int) -> None:
        self._standing: Standing | None = None
        self._stack = ExitStack()
        self._bench = self._stack.enter_context(open_bench(cache_bytes, self._hear))

    def _hear(self, standing: Standing) -> None:
        self._standing = standing

    def hello(self) -> Hello:
        """Who it is."""
        import ray

        node = ray.get_runtime_context().get_node_id()
        return Hello(f"{socket.gethostname()}/{os.getpid()}", node, version("personalive"))

    def standing(self) -> Standing | None:
        """How far it is with its last job."""
        return self._standing

    def do(self, task: Task) -> Outcome:
        """Do a job and say what came of it."""
        return self._bench.do(task)

    def close(self) -> None:
        """Give back what it holds."""
        self._stack.close()
