"""Threads with bounded queues that read and write in the background; they can be stopped and pass on all errors.

The main thread animates. A `BackgroundReader` runs an iterator ahead of it, a `BackgroundWriter` runs a function
behind it. Each holds a bounded number of items, raises an exception of its thread in the main thread at the next
call, and ends within one item when its context is left for any reason.

Ctrl-C raises in the main thread between any two steps of the interpreter, also inside a `Condition` or `Event` just
after it has acquired its lock, which then is never released and hangs the other thread. So the main thread uses
only `SimpleQueue`, whose operations are single steps: one queue carries the items, another the free slots for them.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from queue import Empty, SimpleQueue
from typing import Generic, Self, TypeVar

T = TypeVar("T")

_START_TIMEOUT_S = 1.0
"""How long to wait for a thread to begin, which Ctrl-C may have prevented."""


class _End:
    """Follows the last item; `error` is the exception that ended the iterator, if any."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


class _BackgroundThread(ABC):
    """A thread that belongs to a `with` block: started at the first use within it, ended after it.

    It is not started on entering, because Ctrl-C between the start and the block would leave it running.
    """

    def __init__(self, name: str, room: int) -> None:
        # A daemon: if Ctrl-C kept it from beginning in time, nothing may wait for it, the interpreter included.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._queue_space: SimpleQueue[None] = SimpleQueue()
        for _ in range(room):
            self._queue_space.put(None)
        self._launched = self._started = self._stopped = self._done = False
        self._finished: SimpleQueue[None] = SimpleQueue()

    def _run(self) -> None:
        self._started = True
        try:
            if not self._stopped:
                self._work()
        finally:
            self._done = True
            self._finished.put(None)

    @abstractmethod
    def _work(self) -> None:
        """Do the thread's work until it is finished or `_stopped` is set."""

    @abstractmethod
    def _stop(self) -> None:
        """Make the thread end after its current item."""

    def start(self) -> None:
        """Start the thread now instead of at the first use."""
        if not self._launched:
            self._launched = True
            self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop()
        self._join()

    def _join(self) -> None:
        """Wait for the thread, after Ctrl-C too: it must not go on using what the caller closes next."""
        interrupt: BaseException | None = None
        while self._launched and not self._done:
            try:
                self._finished.get(timeout=None if self._started else _START_TIMEOUT_S)
            except Empty:
                if not self._started:
                    break
            except BaseException as error:
                interrupt = error
                self._stop()
        if interrupt is not None:
            raise interrupt


class BackgroundReader(_BackgroundThread, Generic[T]):
    """Iterates over `items` in a separate thread, at most `ahead` items ahead of the consumer."""

    def __init__(self, items: Iterable[T], *, ahead: int) -> None:
        super().__init__("personalive-reader", ahead)
        self._source = items
        self._items: SimpleQueue[T | _End] = SimpleQueue()
        self._last: _End | None = None

    def _work(self) -> None:
        try:
            for item in self._source:
                self._queue_space.get()
                if self._stopped:
                    return
                self._items.put(item)
        except BaseException as error:
            self._items.put(_End(error))
        else:
            self._items.put(_End())

    def _stop(self) -> None:
        self._stopped = True
        self._queue_space.put(None)

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        """Return the next item. Raises what the iterator raised, after all items before that."""
        self.start()
        if self._last is None:
            item = self._items.get()
            if not isinstance(item, _End):
                self._queue_space.put(None)
                return item
            self._last = item
        if self._last.error is not None:
            raise self._last.error
        raise StopIteration


class BackgroundWriter(_BackgroundThread, Generic[T]):
    """Calls `consume` with every item in order, in a separate thread; at most `behind` items wait."""

    def __init__(self, consume: Callable[[T], None], *, behind: int) -> None:
        super().__init__("personalive-writer", behind)
        self._consume = consume
        self._items: SimpleQueue[T | _End] = SimpleQueue()
        self._error: BaseException | None = None

    def _work(self) -> None:
        try:
            while not self._stopped:
                item = self._items.get()
                if isinstance(item, _End) or self._stopped:
                    return
                self._queue_space.put(None)
                self._consume(item)
        except BaseException as error:
            self._error = error
            self._queue_space.put(None)

    def _stop(self) -> None:
        self._stopped = True
        self._items.put(_End())

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def put(self, item: T) -> None:
        """Queue an item; wait while the queue is full. Raises what `consume` raised on an earlier item."""
        self.start()
        self._raise_error()
        self._queue_space.get()
        self._raise_error()
        self._items.put(item)

    def finish(self) -> None:
        """Wait until every item is consumed. Raises what `consume` raised."""
        self._items.put(_End())
        self._join()
        self._raise_error()


class BackgroundCall(_BackgroundThread, Generic[T]):
    """Calls `function` once, in a separate thread. Leaving the block waits for it, so it should end soon then."""

    def __init__(self, function: Callable[[], T]) -> None:
        super().__init__("personalive-call", 0)
        self._function = function
        self._result: list[T] = []
        self._error: BaseException | None = None

    def _work(self) -> None:
        try:
            self._result.append(self._function())
        except BaseException as error:
            self._error = error

    def _stop(self) -> None:
        self._stopped = True

    @property
    def done(self) -> bool:
        """Whether the function has ended, so that `result` returns at once."""
        return self._done

    def wait(self) -> None:
        """Wait until the function has returned or raised."""
        self._stop()
        self._join()

    def result(self) -> T:
        """Wait for the function and return its result. Raises what it raised."""
        self.start()
        while not self._done:
            self._join()
        if self._error is not None:
            raise self._error
        return self._result[0]
