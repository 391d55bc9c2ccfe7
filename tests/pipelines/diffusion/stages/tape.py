"""A recorder that needs no GPU."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any


class Tape:
    """Records without a GPU: what is replayed is simply run again, on the same places in memory."""

    def __init__(self, *, works: bool = True, fails: Iterable[tuple[int, Exception]] = ()) -> None:
        """`fails`: errors by the number of the call, of trials and recordings together, from 0 on."""
        self._fails = dict(fails)
        self._calls = itertools.count()
        self.tried = 0
        self.recorded = 0
        self.replayed = 0
        self.gave_back = 0
        self._works = works

    def _call(self) -> None:
        if (error := self._fails.get(next(self._calls))) is not None:
            raise error

    def warm_up(self, run: Callable[[], Any]) -> Any:
        self._call()
        self.tried += 1
        return run()

    def release_unused(self) -> None:
        self.gave_back += 1

    def capture(self, run: Callable[[], None]) -> Callable[[], None]:
        if not self._works:
            raise RuntimeError("operation not permitted when stream is capturing")
        self._call()
        self.recorded += 1
        run()

        def replay() -> None:
            self.replayed += 1
            run()

        return replay
