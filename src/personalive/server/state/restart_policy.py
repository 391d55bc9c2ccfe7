"""How often a pipeline whose process ends is started again."""

from __future__ import annotations

import math
import time

MOST = 5
WITHIN_S = 60.0


class Restarts:
    """Allow fewer than `MOST` deaths in a row that each come within `WITHIN_S` seconds of a start.

    A start that fails is such a death. So a pipeline that always dies is no loop, however long its loading takes.
    """

    def __init__(self) -> None:
        self._deaths = 0
        self._started = time.monotonic()

    def started(self) -> None:
        """Say that the pipeline is ready."""
        self._started = time.monotonic()

    def allow(self) -> bool:
        """Count a death, and return whether to start again after it."""
        if time.monotonic() - self._started > WITHIN_S:
            self._deaths = 0
        self._deaths += 1
        # A start takes its time, which must not count as time that the pipeline ran.
        self._started = math.inf
        return self._deaths < MOST

    @staticmethod
    def given_up(reason: str) -> str:
        """Return what to tell the user; `reason` is a sentence about the last death."""
        return (
            f"The pipeline ended {MOST} times in a row within {WITHIN_S:.0f} seconds of its start and is not "
            f"started again. {reason} See the server's log, then load it again (POST /api/v1/pipeline/load)."
        )
