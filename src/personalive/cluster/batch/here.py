"""A batch in this process: no Ray, and nothing to set up.

The jobs take turns at the pipeline, one after the other, on the main thread. While one animates, the next is opened
and the one before it completed, each on another thread, so that the pipeline does not wait for files.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from personalive.cluster.batch import storage
from personalive.cluster.batch.books import HERE, Batch
from personalive.cluster.batch.work import Bench, Outcome, Standing, Task, open_bench
from personalive.offline.phases import Phase
from personalive.offline.threads import Call

_WAIT_SECONDS = 0.2

Keep = Callable[[Task, Outcome], None]
"""Called with each job and what came of it."""


def work_here(batch: Batch, *, cache_bytes: int, tell: Callable[[str], None], keep: Keep) -> None:
    """Do all that waits. `tell` is called often, with a stage for the whole or ""; `keep` with each outcome."""
    with open_bench(cache_bytes, lambda standing: None) as bench, _line(bench, batch, tell, keep) as line:
        while not batch.finished:
            if not line.turn():
                tell("waiting for another run")
                time.sleep(_WAIT_SECONDS)


class _Stopped(BaseException):
    """Ends a job on another thread after Ctrl-C."""


class _Attempt:
    """A job between its phases. `next` is the one that comes next, `outcome` what came of it in the end."""

    def __init__(self, bench: Bench, task: Task) -> None:
        self.task = task
        self.next: Phase | None = None
        self.outcome: Outcome | None = None
        self.call: Call[None] | None = None
        """What another thread does of it."""
        self._phases = bench.in_phases(task)

    @property
    def local(self) -> bool:
        """Whether no store is asked: that may take for ever, and only the main thread hears Ctrl-C."""
        task = self.task
        return not any(map(storage.is_url, (task.reference, task.driving, task.output)))

    def advance(self) -> None:
        """Do one phase."""
        try:
            self.next = next(self._phases)
        except StopIteration as end:
            self.outcome = end.value

    def aside(self) -> None:
        """Have another thread do one phase."""
        self.call = Call(self.advance)
        self.call.start()

    def wait(self) -> None:
        """Wait for the other thread."""
        if self.call is not None:
            self.call.result()
            self.call = None

    def close(self) -> None:
        """Give it up, and leave behind what a run that was stopped leaves."""
        if self.call is not None:
            self.call.give_up()
        self._phases.close()


class _Line:
    """The jobs in hand: one that is being opened, one that animates, one that is being completed."""

    def __init__(self, bench: Bench, batch: Batch, tell: Callable[[str], None], keep: Keep) -> None:
        self._bench = bench
        self._batch = batch
        self._tell = tell
        self._keep = keep
        self._opened: _Attempt | None = None
        self._animated: _Attempt | None = None
        self._completed: _Attempt | None = None
        self._stopped = False
        self._main = threading.current_thread()
        bench.heard = self._heard

    def _heard(self, standing: Standing) -> None:
        if threading.current_thread() is not self._main:
            # The books are the main thread's. What matters of these phases is in the outcome.
            if self._stopped:
                raise _Stopped
            return
        if self._completed is not None and self._completed.call is not None and self._completed.call.done:
            self._settle_completed()
        self._batch.heard(HERE, standing)
        self._batch.save()
        self._tell("")

    def turn(self) -> bool:
        """Let the next job animate. Returns False where none can be begun now."""
        attempt = self._animated = self._take()
        if attempt is None:
            self._batch.give_up_hopeless([HERE])
            return self._batch.finished
        attempt.wait()
        while attempt.outcome is None and attempt.next is not Phase.ANIMATING:
            if attempt.next is Phase.LOADING:
                self._settle_completed()
            attempt.advance()
        if attempt.outcome is None:
            self._open_next()
        while attempt.outcome is None and attempt.next is not Phase.FINISHING:
            attempt.advance()
        self._settle_completed()
        self._completed, self._animated = attempt, None
        if attempt.outcome is None and attempt.local:
            attempt.aside()
        else:
            self._settle_completed()
        if self._bench.spoiled:
            self._renew()
        return True

    def _take(self) -> _Attempt | None:
        opened, self._opened = self._opened, None
        if opened is not None:
            return opened
        self._settle_completed()
        task = self._batch.take(HERE, HERE)
        return None if task is None else _Attempt(self._bench, task)

    def _open_next(self) -> None:
        task = self._batch.take(HERE, HERE, ahead=True)
        if task is None:
            return
        self._opened = _Attempt(self._bench, task)
        if self._opened.local:
            self._opened.aside()

    def _settle_completed(self) -> None:
        """Wait for the job that is being completed, and enter what came of it."""
        attempt = self._completed
        if attempt is None:
            return
        attempt.wait()
        while attempt.outcome is None:
            attempt.advance()
        self._completed = None
        self._enter(attempt.task, attempt.outcome)
        self._batch.save(now=True)
        self._bench.clear()
        self._tell("")

    def _enter(self, task: Task, outcome: Outcome) -> None:
        self._keep(task, outcome)
        self._batch.ended(task.name, HERE, outcome)
        self._batch.give_up_hopeless([HERE])

    def _renew(self) -> None:
        """Go on with a new pipeline; a job that has a session of the old one is opened again."""
        self._settle_completed()
        opened = self._opened
        if opened is not None:
            opened.wait()
            if opened.outcome is None:
                opened.close()
                self._opened = _Attempt(self._bench, opened.task)
        self._bench.renew()

    def stop(self) -> None:
        """Give up all that is not done."""
        self._stopped = True
        for attempt in (self._animated, self._opened, self._completed):
            if attempt is not None:
                attempt.close()
        completed, self._completed = self._completed, None
        if completed is not None and completed.outcome is not None:
            self._enter(completed.task, completed.outcome)


@contextmanager
def _line(bench: Bench, batch: Batch, tell: Callable[[str], None], keep: Keep) -> Iterator[_Line]:
    line = _Line(bench, batch, tell, keep)
    try:
        yield line
    finally:
        line.stop()
