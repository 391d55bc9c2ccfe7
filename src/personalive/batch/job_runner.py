"""A worker's jobs: they take turns at the pipeline, and what of them needs no turn is done meanwhile.

All jobs animate on one thread, one after the other. While one does, the next is opened and the one before it
completed, each on another thread, so that the pipeline does not wait for files.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from personalive.batch.worker import Bench, Outcome, Standing, Task
from personalive.jobs.background_io import Call
from personalive.jobs.phases import Phase

_ASK_SECONDS = 0.1
"""While a job animates and none is open, so often at most it is asked for one: frames can be much faster."""


class Jobs(Protocol):
    """Where the jobs come from. All is called on the thread on which they animate."""

    def take(self, *, ahead: bool) -> Task | None:
        """The next job; None where there is none. `ahead`: to be opened while another animates, without waiting."""

    def aside(self, task: Task) -> bool:
        """Whether the job may be opened and completed on another thread."""

    def heard(self, standing: Standing) -> None:
        """How far the job is that animates."""

    def ended(self, task: Task, outcome: Outcome) -> None:
        """What came of a job."""


class _Stopped(BaseException):
    """Ends a job on another thread when all are given up."""


class _Attempt:
    """A job between its phases. `next` is the one that comes next, `outcome` what came of it in the end."""

    def __init__(self, bench: Bench, task: Task) -> None:
        self.task = task
        self.next: Phase | None = None
        self.outcome: Outcome | None = None
        self.call: Call[None] | None = None
        """What another thread does of it."""
        self._phases = bench.in_phases(task)

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


class Runner:
    """The jobs in hand: one that is being opened, one that animates, one that is being completed.

    Its methods are for the thread that made it.
    """

    def __init__(self, bench: Bench, jobs: Jobs) -> None:
        self._bench = bench
        self._jobs = jobs
        self._opened: _Attempt | None = None
        self._animated: _Attempt | None = None
        self._completed: _Attempt | None = None
        self._animating = self._stopped = False
        self._asked = 0.0
        self._thread = threading.current_thread()
        bench.heard = self._heard

    def _heard(self, standing: Standing) -> None:
        if threading.current_thread() is not self._thread:
            # What matters of these phases is in the outcome.
            if self._stopped:
                raise _Stopped
            return
        if self._completed is not None and self._completed.call is not None and self._completed.call.done:
            self._settle_completed()
        if self._animating and self._opened is None and time.monotonic() > self._asked + _ASK_SECONDS:
            self._open_next()
        self._jobs.heard(standing)

    def turn(self) -> bool:
        """Let the next job animate. Returns False where there is none."""
        attempt = self._animated = self._take()
        if attempt is None:
            return False
        attempt.wait()
        while attempt.outcome is None and attempt.next is not Phase.ANIMATING:
            if attempt.next is Phase.LOADING:
                self._settle_completed()
            attempt.advance()
        if attempt.outcome is None:
            self._animate(attempt)
        self._settle_completed()
        self._completed, self._animated = attempt, None
        if attempt.outcome is None and self._jobs.aside(attempt.task):
            attempt.aside()
        else:
            self._settle_completed()
        if self._bench.spoiled:
            self._renew()
        return True

    def _animate(self, attempt: _Attempt) -> None:
        self._open_next()
        self._animating = True
        while attempt.outcome is None and attempt.next is not Phase.FINISHING:
            attempt.advance()
        self._animating = False

    def _take(self) -> _Attempt | None:
        opened, self._opened = self._opened, None
        if opened is not None:
            return opened
        self._settle_completed()
        task = self._jobs.take(ahead=False)
        return None if task is None else _Attempt(self._bench, task)

    def _open_next(self) -> None:
        self._asked = time.monotonic()
        task = self._jobs.take(ahead=True)
        if task is None:
            return
        self._opened = _Attempt(self._bench, task)
        if self._jobs.aside(task):
            self._opened.aside()

    def _settle_completed(self) -> None:
        """Wait for the job that is being completed, and say what came of it."""
        attempt = self._completed
        if attempt is None:
            return
        attempt.wait()
        while attempt.outcome is None:
            attempt.advance()
        self._completed = None
        self._jobs.ended(attempt.task, attempt.outcome)

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
            self._jobs.ended(completed.task, completed.outcome)


@contextmanager
def running(bench: Bench, jobs: Jobs) -> Iterator[Runner]:
    """A runner for the time of a block; whatever ends it, no other thread is at work afterwards."""
    runner = Runner(bench, jobs)
    try:
        yield runner
    finally:
        runner.stop()
