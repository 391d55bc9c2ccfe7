"""The policy of how often a pipeline whose process ends is started again."""

from __future__ import annotations

import math
import time

MAX_DEATHS = 5
DEATH_WINDOW_S = 60.0


class RestartPolicy:
    """A limit of fewer than `MAX_DEATHS` deaths in a row, each within `DEATH_WINDOW_S` seconds of a start.

    A failed start counts as such a death. So a pipeline that always dies is not restarted endlessly, however
    long it takes to load.
    """

    def __init__(self) -> None:
        self._deaths = 0
        self._started_at = time.monotonic()

    def on_started(self) -> None:
        """Record that the pipeline is ready."""
        self._started_at = time.monotonic()

    def should_restart(self) -> bool:
        """Count a death, and return whether to start again after it."""
        if time.monotonic() - self._started_at > DEATH_WINDOW_S:
            self._deaths = 0
        self._deaths += 1
        # The time that a start takes must not count as time that the pipeline ran.
        self._started_at = math.inf
        return self._deaths < MAX_DEATHS

    @staticmethod
    def describe_failure(reason: str) -> str:
        """Return a message for the user; `reason` is a sentence about the last death."""
        return (
            f"The pipeline ended {MAX_DEATHS} times in a row within {DEATH_WINDOW_S:.0f} seconds of its start "
            f"and is not started again. {reason} See the server's log, then load it again "
            "(POST /api/v1/pipeline/load)."
        )
