"""A batch on Ray: actors that are hired, given work, listened to, and replaced when they die."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from personalive.batch.job_tracker import Batch
from personalive.batch.ray_client import connected
from personalive.batch.ray_worker import CALLS, IN_HAND, Hello, RayWorker
from personalive.batch.remote_workdir import remove_leftovers
from personalive.batch.worker import Ending, Outcome, Standing, Task
from personalive.errors import ClusterError, InputError, PersonaLiveError

_WAIT_SECONDS = 0.2
_ASK_SECONDS = 0.5
_CLOSE_SECONDS = 10.0
_COUNT_SECONDS = 5.0
_SETTLED_SECONDS = 60.0
"""A worker that has no machine after this time is not waited for any more when nobody else is fit."""
_FAILED_STARTS = 4
"""So many workers in a row that never come up mean that none will."""


@dataclass(frozen=True, slots=True)
class CrewSettings:
    """How many workers there are to be, and what each takes of its machine."""

    address: str | None = None
    """Of a Ray cluster: "auto", HOST:PORT or ray://HOST:PORT. None starts one on this machine, for this batch."""
    workers: int | None = None
    """None for as many as the cluster has room for."""
    gpus: float | None = None
    """Per worker; several share one GPU where it is below 1. None for 1 where the cluster has GPUs, else 0."""
    cpus: float = 1.0
    """Per worker."""
    cache_bytes: int = 10_000_000_000

    @property
    def cores(self) -> int:
        """What all workers take together, as far as their number is known."""
        return math.ceil((self.workers or 1) * self.cpus)

    def check(self) -> None:
        """Raise `InputError` for numbers that cannot be."""
        if self.workers is not None and self.workers < 1:
            raise InputError(f"There must be one worker at least, not {self.workers}.")
        if not (math.isfinite(self.cpus) and self.cpus > 0):
            raise InputError(f"A worker must have some of a CPU, not {self.cpus:g}.")
        if self.gpus is not None and not (0 <= self.gpus < 1 or (self.gpus < 100 and self.gpus.is_integer())):
            raise InputError(f"A worker has 0 to 1 of a GPU, or several whole ones, not {self.gpus:g}.")


def work_on_ray(
    batch: Batch,
    settings: CrewSettings,
    *,
    tell: Callable[[str], None],
    keep: Callable[[Task, Outcome], None],
) -> None:
    """Do all that waits. `tell` is called often, with a stage for the whole or ""; `keep` with each outcome.

    Raises `ClusterError` where no worker can be had. Whatever is raised, the workers are gone afterwards.
    """
    tell("connecting to Ray")
    with connected(settings.address, settings.cores) as ray:
        crew = _Crew(ray, batch, settings, keep)
        try:
            while not batch.finished:
                tell(crew.turn())
                batch.save()
            crew.close()
        finally:
            crew.kill()


class _Worker:
    """An actor as the crew knows it. Without a name until it has said hello."""

    def __init__(self, actor: Any) -> None:
        self.actor = actor
        self.name = ""
        self.node = ""
        self.in_hand = 0
        """Jobs it was given that have not ended."""
        self.kept: list[str] = []
        """The outputs of jobs it has done. It keeps their segments until it is told that this is known."""
        self.asked = 0.0
        self.hired = time.monotonic()


@dataclass(frozen=True, slots=True)
class _Call:
    """A call of a worker that has not been answered: what to do with the answer, and whether it is an outcome."""

    worker: _Worker
    then: Callable[[Any], None]
    does_job: bool = False


def may_take_ahead(in_hand: int, all_in_hand: Sequence[int], waiting: int) -> bool:
    """Whether a worker that has `in_hand` jobs should get another one beside them, of `waiting` ones.

    `all_in_hand`: how many each worker has, those included that are yet to come up. Each of them that is not full
    could begin one soon: with fewer jobs than that, whoever is ready first should get the next.
    """
    return 0 < in_hand < IN_HAND and waiting >= sum(count < IN_HAND for count in all_in_hand)


class _Crew:
    def __init__(
        self, ray: Any, batch: Batch, settings: CrewSettings, keep: Callable[[Task, Outcome], None]
    ) -> None:
        self._ray = ray
        self._batch = batch
        self._keep = keep
        gpus = settings.gpus
        if gpus is None:
            gpus = 1.0 if ray.cluster_resources().get("GPU", 0) >= 1 else 0.0
        self._needs = {"CPU": settings.cpus, "GPU": gpus}
        self._wanted = settings.workers
        self._kind = ray.remote(
            num_cpus=settings.cpus,
            num_gpus=gpus,
            max_restarts=0,
            max_concurrency=CALLS,
        )(RayWorker)
        self._cache_bytes = settings.cache_bytes
        self._workers: list[_Worker] = []
        self._calls: dict[Any, _Call] = {}
        self._failed_starts = 0
        self._counted, self._places = 0.0, self._room()
        if settings.address is None and self._places < (settings.workers or 1):
            raise ClusterError(
                f"This machine has room for {self._places} workers, each with {self._described()}, not "
                f"{settings.workers}: let several share a GPU (--gpus-per-worker 0.5), or ask for fewer."
            )

    # Hiring

    def _room(self) -> int:
        """How many workers the machines that are there have room for, by what they have in all."""
        room = 0
        for node in self._ray.nodes():
            if node["Alive"]:
                has = node["Resources"]
                fits = [int(has.get(name, 0) / need + 1e-9) for name, need in self._needs.items() if need]
                room += min(fits)
        return room

    def _described(self) -> str:
        cpus, gpus = self._needs["CPU"], self._needs["GPU"]
        return f"{cpus:g} CPU" + (f" and {gpus:g} GPU" if gpus else "")

    def _hire(self) -> None:
        if time.monotonic() > self._counted + _COUNT_SECONDS:  # machines come and go
            self._counted, self._places = time.monotonic(), self._room()
        wanted = self._wanted or max(self._places, 1)
        idle = sum(not worker.in_hand for worker in self._workers)
        missing = min(wanted - len(self._workers), self._batch.waiting - idle)
        for _ in range(missing):
            worker = _Worker(self._kind.remote(self._cache_bytes))
            self._workers.append(worker)
            self._calls[worker.actor.hello.remote()] = _Call(worker, partial(self._welcome, worker))

    def _welcome(self, worker: _Worker, hello: Hello) -> None:
        from importlib.metadata import version

        if hello.version != version("personalive"):
            raise ClusterError(
                f"{hello.name} has personalive {hello.version}, this machine {version('personalive')}: "
                "install the same version on every machine."
            )
        self._failed_starts = 0
        worker.name, worker.node = hello.name, hello.node

    # One round

    def turn(self) -> str:
        """Hand out work, wait a moment, take in what came. Returns a stage for the whole, or ""."""
        self._hire()
        self._hand_out()
        for worker in self._workers:
            self._ask(worker)
        dead = [end for call in self._answered() if (end := self._take_in(call)) is not None]
        # Not before all answers are taken in: some may be of jobs that a dead one has finished.
        for worker, reason in dead:
            self._bury(worker, reason)
        nodes = {worker.node for worker in self._workers if worker.name}
        late = time.monotonic() - _SETTLED_SECONDS
        if all(worker.name or worker.hired < late for worker in self._workers):
            self._batch.give_up_hopeless(nodes)
        if not nodes and self._workers:
            return f"waiting for workers, each with {self._described()}"
        return ""

    def _answered(self) -> list[Any]:
        """The calls that have an answer, after a moment at most."""
        if not self._calls:
            time.sleep(_WAIT_SECONDS)
            return []
        self._ray.wait(list(self._calls), num_returns=1, timeout=_WAIT_SECONDS)
        ready, _ = self._ray.wait(list(self._calls), num_returns=len(self._calls), timeout=0)
        return list(ready)

    def _hand_out(self) -> None:
        """Give every worker that is there a job, and then, where enough wait, the next one to open meanwhile."""
        there = [worker for worker in self._workers if worker.name]
        for worker in there:
            if not worker.in_hand and self._batch.waiting:
                self._give(worker)
        for worker in there:
            every = [one.in_hand for one in self._workers]
            if may_take_ahead(worker.in_hand, every, self._batch.waiting):
                self._give(worker, ahead=True)

    def _give(self, worker: _Worker, *, ahead: bool = False) -> None:
        task = self._batch.take(worker.name, worker.node, ahead=ahead)
        if task is not None:
            known, worker.kept = worker.kept, []
            worker.in_hand += 1
            then = partial(self._ended, worker, task)
            self._calls[worker.actor.do.remote(task, known)] = _Call(worker, then, does_job=True)

    def _ask(self, worker: _Worker) -> None:
        if not worker.in_hand or time.monotonic() < worker.asked + _ASK_SECONDS:
            return
        worker.asked = math.inf
        self._calls[worker.actor.standings.remote()] = _Call(worker, partial(self._heard, worker))

    def _heard(self, worker: _Worker, standings: list[Standing]) -> None:
        worker.asked = time.monotonic()
        for standing in standings:
            self._batch.heard(worker.name, standing)

    def _ended(self, worker: _Worker, task: Task, outcome: Outcome) -> None:
        worker.in_hand -= 1
        if outcome.ending is Ending.DONE:
            worker.kept.append(task.output)
        self._keep(task, outcome)
        self._batch.ended(task.name, worker.node, outcome)

    def _take_in(self, ref: Any) -> tuple[_Worker, str] | None:
        """Take in the answer to a call. Returns the worker, and how it died, if this is all there is to learn."""
        call = self._calls.pop(ref)
        worker = call.worker
        if worker not in self._workers:  # buried already, by another call's failure
            return None
        errors = self._ray.exceptions
        try:
            answer = self._ray.get(ref)
        except errors.RayTaskError as error:
            if not worker.name:
                return worker, str(error.cause or error)
            if call.does_job:
                call.then(Outcome(Ending.BROKEN, str(error.cause or error)))
            return None
        except errors.RayError as error:
            return worker, _gist(error)
        call.then(answer)
        return None

    # Endings

    def _bury(self, worker: _Worker, reason: str) -> None:
        if worker not in self._workers:  # another call has said it too
            return
        self._workers.remove(worker)
        self._end(worker)
        if worker.name:
            self._batch.lost(worker.name, reason)
            return
        self._failed_starts += 1
        if self._failed_starts >= _FAILED_STARTS:
            raise ClusterError(f"Workers do not start on the cluster: {reason}")

    def close(self) -> None:
        """Let the workers clear up: nothing is to be done any more."""
        calls = [worker.actor.close.remote() for worker in self._workers if worker.name]
        if calls:
            self._ray.wait(calls, num_returns=len(calls), timeout=_CLOSE_SECONDS)

    def kill(self) -> None:
        """End all workers now, whatever they are at."""
        for worker in self._workers:
            self._end(worker)
        self._workers.clear()

    def _end(self, worker: _Worker) -> None:
        with suppress(Exception):  # it may be gone, or Ray itself
            self._ray.kill(worker.actor, no_restart=True)
        for output in worker.kept:
            with suppress(PersonaLiveError):
                remove_leftovers(output)


def _gist(error: Exception) -> str:
    """What matters of Ray's long explanations: how they begin, or for what a worker raised, how they end."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    return lines[-1] if "creation task" in lines[0] else lines[0]
