"""Chooses each worker's next job: jobs with the same reference go to one worker, unless another would be idle."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable

from personalive.batch.job_list import BatchJob


class _ReferenceGroup:
    """The jobs that can share a fused reference."""

    def __init__(self, load_key: str) -> None:
        self.load_key = load_key
        self.waiting: deque[BatchJob] = deque()
        self.workers: set[str] = set()


class JobScheduler:
    """The waiting jobs, grouped by reference. Workers and nodes are arbitrary names.

    A node that lacks what a pipeline needs gets no more jobs of that pipeline (`exclude_node`).
    """

    def __init__(self, jobs: Iterable[BatchJob]) -> None:
        self._groups: dict[str, _ReferenceGroup] = {}
        self._excluded_nodes: dict[str, dict[str, str]] = {}
        """Reasons, by load key and node."""
        self._delayed: list[tuple[float, BatchJob]] = []
        for job in jobs:
            self._group(job).waiting.append(job)

    def __len__(self) -> int:
        return sum(len(group.waiting) for group in self._groups.values()) + len(self._delayed)

    def _group(self, job: BatchJob) -> _ReferenceGroup:
        return self._groups.setdefault(job.reference_key, _ReferenceGroup(job.load_key))

    def take(self, worker: str, node: str) -> BatchJob | None:
        """Take the next job for a worker on a node; None where there is none for it now."""
        self._release_delayed()
        held = next((group for group in self._groups.values() if worker in group.workers), None)
        if held is not None and held.waiting and self._can_run(node, held):
            return held.waiting.popleft()
        for group in self._groups.values():
            group.workers.discard(worker)
        free = [group for group in self._groups.values() if group.waiting and self._can_run(node, group)]
        if not free:
            return None
        # Take a group without a worker, of the same pipeline if possible; else help where most jobs are left.
        alike = held.load_key if held else None
        best = max(
            free,
            key=lambda group: (not group.workers, group.load_key == alike, len(group.waiting)),
        )
        best.workers.add(worker)
        return best.waiting.popleft()

    def requeue(self, job: BatchJob, *, seconds: float = 0.0) -> None:
        """Put a job back in front of its group, but not before `seconds` have passed."""
        if seconds > 0:
            self._delayed.append((time.monotonic() + seconds, job))
        else:
            self._group(job).waiting.appendleft(job)

    def _release_delayed(self) -> None:
        now = time.monotonic()
        due = [job for when, job in self._delayed if when <= now]
        self._delayed = [(when, job) for when, job in self._delayed if when > now]
        for job in due:
            self._group(job).waiting.appendleft(job)

    def remove_worker(self, worker: str) -> None:
        """Forget a worker that is gone."""
        for group in self._groups.values():
            group.workers.discard(worker)

    def exclude_node(self, job: BatchJob, node: str, reason: str) -> None:
        """Give the node no more jobs that need the same pipeline as this one."""
        self._excluded_nodes.setdefault(job.load_key, {})[node] = reason

    def _can_run(self, node: str, group: _ReferenceGroup) -> bool:
        return node not in self._excluded_nodes.get(group.load_key, {})

    def pop_unschedulable(self, nodes: set[str]) -> list[tuple[BatchJob, str]]:
        """Remove and return the jobs that none of the nodes can run, each with the reason one of them gave."""
        out: list[tuple[BatchJob, str]] = []
        if not self._excluded_nodes:
            return out
        for group in self._groups.values():
            refused = self._excluded_nodes.get(group.load_key, {})
            if nodes and nodes <= refused.keys():
                reason = next(iter(refused.values()))
                out += [(job, reason) for job in group.waiting]
                group.waiting.clear()
        return out
