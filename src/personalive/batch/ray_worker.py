"""A worker on a Ray cluster: an actor that lives as long as the batch, with one pipeline loaded.

Ray makes an actor of this class; here it is plain, so that whoever imports it needs no Ray.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from queue import Empty, SimpleQueue

from personalive.batch.job_runner import running
from personalive.batch.worker import Outcome, Standing, Task, open_bench
from personalive.errors import ClusterError

IN_HAND = 2
"""So many jobs at most a worker is given at a time: one to animate, one that is opened or completed meanwhile."""
CALLS = IN_HAND + 1
"""Calls that it must be able to answer at the same time: the jobs, and how far they are."""


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
    """Does jobs on a thread of its own, one animating at a time; calls of `do` wait for what comes of theirs."""

    def __init__(self, cache_bytes: int) -> None:
        self._stack = ExitStack()
        self._bench = self._stack.enter_context(open_bench(cache_bytes, lambda standing: None))
        self._calls = _Calls()
        self._thread = threading.Thread(target=self._work, name="personalive-worker", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while not self._calls.closed:
            try:
                with running(self._bench, self._calls) as runner:
                    while runner.turn():
                        pass
            except BaseException as error:  # nobody else would hear of it, and the calls would wait for ever
                self._bench.spoiled = True
                self._bench.renew()
                self._calls.fail(error)

    def hello(self) -> Hello:
        """Who it is."""
        import ray

        node = ray.get_runtime_context().get_node_id()
        return Hello(f"{socket.gethostname()}/{os.getpid()}", node, version("personalive"))

    def standings(self) -> list[Standing]:
        """How far it is with the jobs that it has in hand and has begun to animate."""
        return self._calls.standings()

    def do(self, task: Task, known: Sequence[str] = ()) -> Outcome:
        """Do a job and say what came of it.

        `known`: outputs of earlier jobs that whoever hands out the work knows to be done. What is kept of the
        work on these is removed.
        """
        # First, and on this thread: in a store it takes a while, and nothing waits for it.
        self._bench.clear(known)
        return self._calls.put(task).result()

    def close(self) -> None:
        """Give back what it holds. No job may be in hand."""
        self._calls.close()
        self._thread.join()
        self._stack.close()


class _Calls:
    """The jobs that were asked for, as the thread takes them that does them."""

    def __init__(self) -> None:
        self._waiting: SimpleQueue[tuple[Task, Future[Outcome]] | None] = SimpleQueue()
        self._outcomes: dict[str, Future[Outcome]] = {}
        """Of the jobs that were taken, by name, as are the standings."""
        self._standings: dict[str, Standing] = {}
        self.closed = False

    # For the threads of calls

    def put(self, task: Task) -> Future[Outcome]:
        outcome = Future[Outcome]()
        self._waiting.put((task, outcome))
        return outcome

    def standings(self) -> list[Standing]:
        return list(self._standings.values())

    def close(self) -> None:
        self.closed = True
        self._waiting.put(None)

    # For the thread that does the jobs

    def take(self, *, ahead: bool) -> Task | None:
        try:
            taken = self._waiting.get(block=not ahead)
        except Empty:
            return None
        if taken is None:
            return None
        task, self._outcomes[taken[0].name] = taken
        return task

    def aside(self, task: Task) -> bool:
        # Files in stores as well: a worker need not hear Ctrl-C, it is killed.
        del task
        return True

    def heard(self, standing: Standing) -> None:
        self._standings[standing.name] = standing

    def ended(self, task: Task, outcome: Outcome) -> None:
        self._standings.pop(task.name, None)
        self._outcomes.pop(task.name).set_result(outcome)

    def fail(self, error: BaseException) -> None:
        """Let the calls for all jobs that were taken end in an error that is none of theirs."""
        self._standings.clear()
        while self._outcomes:
            _, outcome = self._outcomes.popitem()
            outcome.set_exception(ClusterError(f"The worker broke down: {error!r}"))
