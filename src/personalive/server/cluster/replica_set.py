"""The replicas as the ingress sees them: list them, and send requests to one, to a session's owner, or to all."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from personalive.server.cluster.messages import ReplicaStatus, parse_replica_id
from personalive.server.cluster.replica_client import (
    ProxyRequest,
    ProxyResponse,
    ReplicaClient,
    ReplicaUnreachableError,
    StreamingProxyResponse,
)
from personalive.server.errors import NotFoundError, ServiceUnavailableError
from personalive.server.sessions.session_manager import UnknownSessionError

if TYPE_CHECKING:
    from ray.serve.handle import DeploymentHandle

RETRY_AFTER_S = 5
_AGGREGATE_TIMEOUT_S = 5.0
"""Seconds that one slow replica may delay an answer that is merged from all."""


class NoReplicaError(ServiceUnavailableError):
    """No replica can be reached."""

    def __init__(self) -> None:
        super().__init__("No replica is up yet: try again in a moment.", retry_after=RETRY_AFTER_S)


@dataclass(frozen=True, slots=True)
class ReplicaReply:
    """The answer of one replica."""

    replica: ReplicaStatus
    response: ProxyResponse

    def json(self) -> Any:
        """Return the decoded JSON of the answer."""
        return json.loads(self.response.body)


class ReplicaSet:
    """All replicas. Use it on one event loop only."""

    def __init__(self, controller: DeploymentHandle[Any], client: ReplicaClient) -> None:
        self._controller = controller
        self._client = client
        self._known: dict[str, ReplicaStatus] = {}

    async def list_replicas(self) -> list[ReplicaStatus]:
        """Return every replica with a recent heartbeat; those that can open sessions come first."""
        found: list[ReplicaStatus] = await self._controller.list_replicas.remote()
        self._known = {member.id: member for member in found}
        return sorted(found, key=lambda member: not member.can_open_sessions)

    async def request(self, replica: ReplicaStatus, proxy_request: ProxyRequest) -> ProxyResponse:
        """Return the replica's answer. Raises `ReplicaUnreachableError`."""
        return await self._client.request(replica.address, replica.key, proxy_request)

    async def request_any(self, proxy_request: ProxyRequest) -> ProxyResponse:
        """Return the answer of one replica, if possible a loaded one. Raises `NoReplicaError`."""
        members = await self.list_replicas()
        best = [member for member in members if member.can_open_sessions] or members
        return await self.request_first(random.sample(best, len(best)), proxy_request)

    async def request_first(
        self, replicas: Iterable[ReplicaStatus], proxy_request: ProxyRequest
    ) -> ProxyResponse:
        """Return the answer of the first of `replicas` that can be reached. Raises `NoReplicaError`."""
        for member in replicas:
            with contextlib.suppress(ReplicaUnreachableError):  # it is gone, but still listed
                return await self.request(member, proxy_request)
        raise NoReplicaError

    async def request_all(self, proxy_request: ProxyRequest) -> list[ReplicaReply]:
        """Return the answers of all replicas that answer within `_AGGREGATE_TIMEOUT_S`."""
        return await self.request_each(await self.list_replicas(), proxy_request)

    async def request_each(
        self, replicas: Iterable[ReplicaStatus], proxy_request: ProxyRequest
    ) -> list[ReplicaReply]:
        """Return the answers of those of `replicas` that answer within `_AGGREGATE_TIMEOUT_S`."""

        async def one(member: ReplicaStatus) -> ReplicaReply | None:
            try:
                answer = await self._client.request(
                    member.address, member.key, proxy_request, timeout=_AGGREGATE_TIMEOUT_S
                )
            except ReplicaUnreachableError:
                return None
            return ReplicaReply(member, answer)

        return [said for said in await asyncio.gather(*map(one, replicas)) if said is not None]

    async def find_owner(self, session_id: str) -> ReplicaStatus:
        """Return the replica that a session's id names. Raises `NotFoundError` if it is gone."""
        id = parse_replica_id(session_id)
        if id not in self._known:
            await self.list_replicas()
        found = self._known.get(id)
        if found is None:
            raise UnknownSessionError
        return found

    async def request_owner(self, session_id: str, proxy_request: ProxyRequest) -> ProxyResponse:
        """Return the answer of the replica that has this session. Raises `NotFoundError` if it is gone."""
        member = await self.find_owner(session_id)
        try:
            return await self.request(member, proxy_request)
        except ReplicaUnreachableError:
            raise NotFoundError(
                "The replica that ran this session is gone, and the session with it: open another one."
            ) from None

    @asynccontextmanager
    async def stream(
        self, replica: ReplicaStatus, proxy_request: ProxyRequest
    ) -> AsyncIterator[StreamingProxyResponse]:
        """Yield the replica's answer as it arrives. Raises `ReplicaUnreachableError`."""
        async with self._client.stream(replica.address, replica.key, proxy_request) as answer:
            yield answer
