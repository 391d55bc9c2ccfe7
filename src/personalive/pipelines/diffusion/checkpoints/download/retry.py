"""How often to try again when the network stumbles, and how long to wait before."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

_T = TypeVar("_T")


class Hiccup(Exception):  # noqa: N818 (no error yet: it turns into one when it does not pass)
    """Something that may pass, so worth another try.

    `busy` means that the hub answers but asks for patience; otherwise the connection failed. `wait` is how long
    the hub asked to wait, in seconds. `restart` means that what is there already is no use.
    """

    def __init__(
        self, reason: str, *, busy: bool = False, wait: float | None = None, restart: bool = False
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.busy = busy
        self.wait = wait
        self.restart = restart


@dataclass(frozen=True, slots=True)
class Patience:
    """`attempts` in a row without any gain are enough; waits double from `first` up to `longest` seconds.

    When the hub asks for a longer wait than `longest_asked`, the user is better asked to come back later; its own
    limits count requests in windows of five minutes.
    """

    attempts: int = 6
    first: float = 1.0
    longest: float = 300.0
    longest_asked: float = 310.0
    sleep: Callable[[float], None] = time.sleep

    def persist(
        self,
        attempt: Callable[[], _T],
        note: Callable[[str], None],
        gained: Callable[[], int] = lambda: 0,
        connections: int | None = None,
    ) -> _T:
        """The result of `attempt`, tried again after each `Hiccup`.

        `gained` says how many bytes there are: while that number grows, patience does not run out. `connections`
        is how many that fail are enough, where that is not `attempts`. Raises the last `Hiccup`.
        """
        failures, best = 0, gained()
        while True:
            try:
                return attempt()
            except Hiccup as hiccup:
                failures = 1 if gained() > best else failures + 1
                best = max(best, gained())
                wait = self._wait(failures, hiccup)
                enough = self.attempts if hiccup.busy or connections is None else connections
                if failures >= enough or (hiccup.wait or 0.0) > self.longest_asked:
                    raise
                note(f"{hiccup.reason}; trying again in {wait:.0f} s")
            self.sleep(wait)

    def _wait(self, failures: int, hiccup: Hiccup) -> float:
        if hiccup.wait is not None:
            return hiccup.wait + 1  # the hub rounds down
        return min(self.longest, self.first * 2.0 ** (failures - 1))
