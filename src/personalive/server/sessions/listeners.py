"""Functions that are called with each frame, block of sound or message."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Listeners(Generic[T]):
    """A list of functions; each may leave it while they are called. Use it on one thread."""

    def __init__(self) -> None:
        self._listeners: list[Callable[[T], None]] = []

    def add(self, listener: Callable[[T], None]) -> Callable[[], None]:
        """Call `listener` from now on; return a function that ends that, and may be called twice."""
        self._listeners.append(listener)

        def unsubscribe() -> None:
            with contextlib.suppress(ValueError):
                self._listeners.remove(listener)

        return unsubscribe

    def notify(self, value: T) -> None:
        """Call all of them, in the order in which they were added."""
        for listener in list(self._listeners):
            listener(value)

    def clear(self) -> None:
        """Forget all of them."""
        self._listeners.clear()
