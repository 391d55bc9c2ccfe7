"""Reading and writing beside the work: threads with bounded queues that stop when told and hide no error.

The main thread animates. A `Reader` runs an iterator ahead of it, a `Writer` runs a function behind it. Each
holds a bounded number of items, hands an exception of its thread to the main thread at the next call, and
ends within one item when its context is left, whatever the reason.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Generic, Self, TypeVar

T = TypeVar("T")


class _Stopped(Exception):  # noqa: N818 — a signal between two threads, not an error
    """The other side has gone: there is nobody to give items to or take them from."""


class _Channel(Generic[T]):
    """A bounded queue between two threads that either can end.

    `finish`: no more items will come; those inside are still delivered. `stop`: both sides let go at once.
    """

    def __init__(self, capacity: int) -> None:
        self._items: deque[T] = deque()
        self._capacity = capacity
        self._changed = threading.Condition()
        self._finished = False
        self._stopped = False
        self._error: BaseException | None = None

    def put(self, item: T) -> None:
        with self._changed:
            while len(self._items) >= self._capacity and not self._stopped:
                self._changed.wait()
            self._raise_if_stopped()
            self._items.append(item)
            self._changed.notify_all()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        """The next item. Raises `StopIteration` once all are delivered, or the error it finished with."""
        with self._changed:
            while not self._items and not self._finished and not self._stopped:
                self._changed.wait()
            self._raise_if_stopped()
            if self._items:
                item = self._items.popleft()
                self._changed.notify_all()
                return item
            if self._error is not None:
                raise self._error
            raise StopIteration

    def finish(self, error: BaseException | None = None) -> None:
        with self._changed:
            self._finished, self._error = True, error
            self._changed.notify_all()

    def stop(self, error: BaseException | None = None) -> None:
        with self._changed:
            if not self._stopped:
                self._stopped, self._error = True, error
                self._items.clear()
            self._changed.notify_all()

    def raise_error(self) -> None:
        with self._changed:
            if self._error is not None:
                raise self._error

    def _raise_if_stopped(self) -> None:
        if self._stopped:
            raise self._error or _Stopped


class _Worker:
    """A thread that belongs to a `with` block: started at the first use within it, gone after it.

    Not started on entering, because a Ctrl-C between the start and the block would leave it running.
    """

    def __init__(self, name: str) -> None:
        # A daemon, so that a read that never returns (a network drive) cannot keep the process alive.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._launched = False
        self._ended = threading.Event()

    def _run(self) -> None:
        try:
            self._work()
        finally:
            self._ended.set()

    def _work(self) -> None:
        raise NotImplementedError

    def _stop(self) -> None:
        raise NotImplementedError

    def _launch(self) -> None:
        if not self._launched:
            self._launched = True
            self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop()
        self._join()

    def _join(self) -> None:
        """Wait for the thread. Ctrl-C makes it stop, but must not leave it at work on what is closed next."""
        interrupt: KeyboardInterrupt | None = None
        while self._launched and not self._ended.is_set():
            try:
                if not self._ended.wait(0.1) and self._thread.ident is None:
                    break  # a Ctrl-C came before it could start
            except KeyboardInterrupt as error:
                interrupt = error
                self._stop()
        if self._ended.is_set():
            self._thread.join()
        if interrupt is not None:
            raise interrupt


class Reader(_Worker, Generic[T]):
    """Iterates over `items` in a thread of its own, at most `ahead` items before the one asked for."""

    def __init__(self, items: Iterable[T], *, ahead: int) -> None:
        super().__init__("personalive-reader")
        self._source = items
        self._channel: _Channel[T] = _Channel(ahead)

    def _work(self) -> None:
        try:
            for item in self._source:
                self._channel.put(item)
        except _Stopped:
            pass
        except BaseException as error:
            self._channel.finish(error)
        else:
            self._channel.finish()

    def _stop(self) -> None:
        self._channel.stop()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        """The next item. Raises what the iterator raised, once all items before it were taken."""
        self._launch()
        return next(self._channel)


class Writer(_Worker, Generic[T]):
    """Calls `use` with every item put in, in order, in a thread of its own; at most `behind` items wait."""

    def __init__(self, use: Callable[[T], None], *, behind: int) -> None:
        super().__init__("personalive-writer")
        self._use = use
        self._channel: _Channel[T] = _Channel(behind)

    def _work(self) -> None:
        try:
            for item in self._channel:
                self._use(item)
        except _Stopped:
            pass
        except BaseException as error:
            self._channel.stop(error)

    def _stop(self) -> None:
        self._channel.stop()

    def put(self, item: T) -> None:
        """Hand an item over; waits while the queue is full. Raises what `use` raised on an earlier one."""
        self._launch()
        self._channel.put(item)

    def finish(self) -> None:
        """Wait until every item was used. Raises what `use` raised."""
        self._channel.finish()
        self._join()
        self._channel.raise_error()
