"""Sessions' slots: each is one call to a replica that lasts as long as its session, so Ray Serve counts them.

What Serve does with calls is then right for sessions: a replica gets no more of them than it has slots, new
replicas are started when most are used, and one that is no longer needed is left alone until its last one ends.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError
from ray.serve.handle import DeploymentHandle, DeploymentResponseGenerator

from personalive.server.cluster.replica_client import Answered, Asked, session_in
from personalive.server.errors import BusyError
from personalive.server.telemetry import logs

PATIENCE_S = 2.0
"""How long an offer waits for a slot: one may be about to be given back, or a replica to be ready."""
_ANSWER_S = 60.0
_RETRY_AFTER_S = 10
_TRIES = 4


class FullError(BusyError):
    """Every slot of every replica is taken."""

    def __init__(self) -> None:
        super().__init__("All slots are taken. Try again later.", retry_after=_RETRY_AFTER_S)


class Slots:
    """Opens sessions, and keeps their calls. Use it on one event loop only."""

    def __init__(self, replicas: DeploymentHandle[Any]) -> None:
        self._replicas = replicas.options(stream=True, method_name="session")
        self._held: dict[str, asyncio.Task[None]] = {}

    def __len__(self) -> int:
        return len(self._held)

    async def open(self, asked: Asked, default: str | None, *, patience: float = PATIENCE_S) -> Answered:
        """Open a session on a replica that has a slot; its answer. One that turns out to be dead is no end.

        Raises `FullError` where no slot becomes free within `patience` seconds.
        """
        for _ in range(_TRIES):
            call = self._replicas.remote(asked, default)
            try:
                answer = await _answer(call, patience)
            except RayActorError as error:
                logs.event("replica_gone", level=logging.WARNING, error=type(error).__name__)
                continue
            except BaseException:
                call.cancel()
                raise
            self._hold(session_in(answer), call)
            return answer
        raise BusyError("Replicas are being replaced: try again in a moment.", retry_after=_RETRY_AFTER_S)

    def _hold(self, session: str | None, call: DeploymentResponseGenerator[Any]) -> None:
        """Keep the call until it ends: at once where no session was opened."""
        name = session or f"refused-{id(call)}"
        task = self._held[name] = asyncio.create_task(_end(name, call), name="slot")
        task.add_done_callback(lambda _: self._held.pop(name, None))


async def _answer(call: DeploymentResponseGenerator[Any], patience: float) -> Answered:
    """The second thing that a replica says: the first, as soon as it has taken the call, is its own id.

    So waiting for a slot is told from waiting for a replica that has much to do, such as preparing a portrait.
    """
    try:
        await asyncio.wait_for(anext(call), patience)
    except (TimeoutError, BackPressureError) as error:
        raise FullError from error
    try:
        async with asyncio.timeout(_ANSWER_S):
            answer: Answered = await anext(call)
    except TimeoutError as error:
        raise BusyError("The replica takes too long: try again.", retry_after=_RETRY_AFTER_S) from error
    return answer


async def _end(name: str, call: DeploymentResponseGenerator[Any]) -> None:
    try:
        async for _ in call:
            pass
    except RayActorError:  # its clients notice by WebRTC, and hear from `owner` that it is gone
        logs.event("session_lost", level=logging.WARNING, session=name)
