"""The policy for retries after network failures: how many, and how long to wait before each."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

_T = TypeVar("_T")


class TransientError(Exception):
    """A temporary failure, after which a retry may succeed.

    `busy` means that the hub answered but limits requests or fails; otherwise the connection failed. `wait` is how
    long the hub asked to wait, in seconds. `restart` means that the bytes received so far cannot be used.
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
class RetryPolicy:
    """How often and how long to retry.

    After `max_attempts` failures in a row without new bytes, the last error is raised. Waits double from
    `initial_wait` up to `max_wait` seconds. When the hub asks for a longer wait than `max_requested_wait`, the
    error is raised at once, so that the user can return later; the hub's limits count requests in windows of five
    minutes.
    """

    max_attempts: int = 6
    initial_wait: float = 1.0
    max_wait: float = 300.0
    max_requested_wait: float = 310.0
    sleep: Callable[[float], None] = time.sleep

    def run(
        self,
        attempt: Callable[[], _T],
        note: Callable[[str], None],
        received: Callable[[], int] = lambda: 0,
        max_connection_failures: int | None = None,
    ) -> _T:
        """Return the result of `attempt`, which is retried after each `TransientError`.

        `received` returns the number of bytes received; while it grows, failures are not counted up.
        `max_connection_failures` replaces `max_attempts` for failed connections. Raises the last `TransientError`.
        """
        failures, best = 0, received()
        while True:
            try:
                return attempt()
            except TransientError as hiccup:
                failures = 1 if received() > best else failures + 1
                best = max(best, received())
                wait = self._wait_seconds(failures, hiccup)
                enough = (
                    self.max_attempts
                    if hiccup.busy or max_connection_failures is None
                    else max_connection_failures
                )
                if failures >= enough or (hiccup.wait or 0.0) > self.max_requested_wait:
                    raise
                note(f"{hiccup.reason}; trying again in {wait:.0f} s")
            self.sleep(wait)

    def _wait_seconds(self, failures: int, error: TransientError) -> float:
        if error.wait is not None:
            return error.wait + 1  # the hub rounds down
        return min(self.max_wait, self.initial_wait * 2.0 ** (failures - 1))
