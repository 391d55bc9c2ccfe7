"""Admission of sessions: each holds one call to a replica for as long as it lasts, so Ray Serve counts sessions.

Serve's rules for calls then apply to sessions: a replica gets no more of them than it has slots, Serve starts new
replicas when most slots are used, and it waits for the last session before it removes an unneeded replica.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError
from ray.serve.handle import DeploymentHandle, DeploymentResponseGenerator

from personalive.server.cluster.replica_client import ProxyRequest, ProxyResponse, get_session_id
from personalive.server.errors import ServiceUnavailableError
from personalive.server.telemetry import logs

SLOT_TIMEOUT_S = 2.0
"""Seconds that an offer waits for a slot: a session may be about to end, or a replica about to be ready."""
_ANSWER_TIMEOUT_S = 60.0
_RETRY_AFTER_S = 10
_MAX_ATTEMPTS = 4


class CapacityError(ServiceUnavailableError):
    """Every slot of every replica is taken."""

    def __init__(self) -> None:
        super().__init__("All slots are taken. Try again later.", retry_after=_RETRY_AFTER_S)


class SessionAdmission:
    """Opener of sessions, which keeps their calls. Use it on one event loop only."""

    def __init__(self, replicas: DeploymentHandle[Any]) -> None:
        self._replicas = replicas.options(stream=True, method_name="open_session")
        self._calls: dict[str, asyncio.Task[None]] = {}

    def __len__(self) -> int:
        return len(self._calls)

    async def open_session(
        self, proxy_request: ProxyRequest, default: str | None, *, timeout: float = SLOT_TIMEOUT_S
    ) -> ProxyResponse:
        """Open a session on a replica with a free slot, and return its answer. Retry on another if it is dead.

        Raises:
            CapacityError: No slot became free within `timeout` seconds.
            ServiceUnavailableError: Every replica that was tried was dead, or the replica took too long.
        """
        for _ in range(_MAX_ATTEMPTS):
            call = self._replicas.remote(proxy_request, default)
            try:
                answer = await _read_answer(call, timeout)
            except RayActorError as error:
                logs.event("replica_unreachable", level=logging.WARNING, error=type(error).__name__)
                continue
            except BaseException:
                call.cancel()
                raise
            self._track_call(get_session_id(answer), call)
            return answer
        raise ServiceUnavailableError(
            "Replicas are being replaced: try again in a moment.", retry_after=_RETRY_AFTER_S
        )

    def _track_call(self, session: str | None, call: DeploymentResponseGenerator[Any]) -> None:
        """Keep the call until it ends, which it does at once if no session was opened."""
        name = session or f"refused-{id(call)}"
        task = self._calls[name] = asyncio.create_task(_consume_call(name, call), name="slot")
        task.add_done_callback(lambda _: self._calls.pop(name, None))


async def _read_answer(call: DeploymentResponseGenerator[Any], timeout: float) -> ProxyResponse:
    """Return the second item of the call. The first is the replica's id, sent as soon as it has taken the call.

    This distinguishes waiting for a slot from waiting for a busy replica, such as one that prepares a portrait.
    """
    try:
        await asyncio.wait_for(anext(call), timeout)
    except (TimeoutError, BackPressureError) as error:
        raise CapacityError from error
    try:
        async with asyncio.timeout(_ANSWER_TIMEOUT_S):
            answer: ProxyResponse = await anext(call)
    except TimeoutError as error:
        raise ServiceUnavailableError(
            "The replica takes too long: try again.", retry_after=_RETRY_AFTER_S
        ) from error
    return answer


async def _consume_call(name: str, call: DeploymentResponseGenerator[Any]) -> None:
    try:
        async for _ in call:
            pass
    except RayActorError:  # clients notice by WebRTC; `request_owner` answers that it is gone
        logs.event("session_lost", level=logging.WARNING, session=name)
