"""A batch in this process: no Ray, and nothing to set up. The jobs animate on the main thread."""

from __future__ import annotations

import time
from collections.abc import Callable

from personalive.batch import storage
from personalive.batch.job_runner import running
from personalive.batch.job_tracker import HERE, Batch
from personalive.batch.worker import Bench, Outcome, Standing, Task, open_bench

_WAIT_SECONDS = 0.2

Keep = Callable[[Task, Outcome], None]
"""Called with each job and what came of it."""


def work_here(batch: Batch, *, cache_bytes: int, tell: Callable[[str], None], keep: Keep) -> None:
    """Do all that waits. `tell` is called often, with a stage for the whole or ""; `keep` with each outcome."""
    with (
        open_bench(cache_bytes, lambda standing: None) as bench,
        running(bench, _Books(batch, bench, tell, keep)) as runner,
    ):
        while not batch.finished:
            if runner.turn():
                tell("")
                continue
            batch.give_up_hopeless([HERE])
            if not batch.finished:
                tell("waiting for another run")
                time.sleep(_WAIT_SECONDS)


class _Books:
    """The jobs of a batch as this process takes them, and what is entered of each."""

    def __init__(self, batch: Batch, bench: Bench, tell: Callable[[str], None], keep: Keep) -> None:
        self._batch = batch
        self._bench = bench
        self._tell = tell
        self._keep = keep

    def take(self, *, ahead: bool) -> Task | None:
        return self._batch.take(HERE, HERE, ahead=ahead)

    def aside(self, task: Task) -> bool:
        # To ask a store may take for ever, and only the main thread hears Ctrl-C.
        return not any(map(storage.is_url, (task.reference, task.driving, task.output)))

    def heard(self, standing: Standing) -> None:
        self._batch.heard(HERE, standing)
        self._batch.save()
        self._tell("")

    def ended(self, task: Task, outcome: Outcome) -> None:
        self._keep(task, outcome)
        self._batch.ended(task.name, HERE, outcome)
        self._batch.give_up_hopeless([HERE])
        self._batch.save(now=True)
        self._bench.clear()
