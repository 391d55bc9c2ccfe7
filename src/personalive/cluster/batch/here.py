"""A batch in this process, one job after the other: no Ray, and nothing to set up."""

from __future__ import annotations

import time
from collections.abc import Callable

from personalive.cluster.batch.books import HERE, Batch
from personalive.cluster.batch.work import Outcome, Standing, Task, open_bench

_WAIT_SECONDS = 0.2


def work_here(
    batch: Batch,
    *,
    cache_bytes: int,
    tell: Callable[[str], None],
    keep: Callable[[Task, Outcome], None],
) -> None:
    """Do all that waits. `tell` is called often, with a stage for the whole or ""; `keep` with each outcome."""

    def heard(standing: Standing) -> None:
        batch.heard(HERE, standing)
        batch.save()
        tell("")

    with open_bench(cache_bytes, heard) as bench:
        while not batch.finished:
            task = batch.take(HERE, HERE)
            if task is None:
                batch.give_up_hopeless([HERE])
                tell("waiting for another run")
                time.sleep(_WAIT_SECONDS)
                continue
            outcome = bench.do(task)
            keep(task, outcome)
            batch.ended(HERE, HERE, outcome)
            batch.give_up_hopeless([HERE])
            batch.save(now=True)
            bench.clear()
            tell("")
