"""The replicas as the ingress sees them: who is there, and asking one, the one that has a session, or all."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from personalive.server.cluster.messages import Member, replica_of
from personalive.server.cluster.replica_client import Answered, Answering, Asked, UnreachableError, Wire
from personalive.server.errors import BusyError, NotFoundError

if TYPE_CHECKING:
    from ray.serve.handle import DeploymentHandle

RETRY_AFTER_S = 5
_TOGETHER_S = 5.0
"""Seconds that one slow replica may keep an answer waiting that is put together from all."""


class NoReplicaError(BusyError):
    """Nobody is there to ask."""

    def __init__(self) -> None:
        super().__init__("No replica is up yet: try again in a moment.", retry_after=RETRY_AFTER_S)


@dataclass(frozen=True, slots=True)
class Said:
    """What one replica answered."""

    member: Member
    answer: Answered

    def json(self) -> Any:
        """The answer's JSON."""
        return json.loads(self.answer.body)


class Fleet:
    """Use it on one event loop only."""

    def __init__(self, ledger: DeploymentHandle[Any], wire: Wire) -> None:
        self._ledger = ledger
        self._wire = wire
        self._known: dict[str, Member] = {}

    async def members(self) -> list[Member]:
        """Every replica that was heard of in the last seconds; those that can open sessions come first."""
        found: list[Member] = await self._ledger.members.remote()
        self._known = {member.id: member for member in found}
        return sorted(found, key=lambda member: not member.loaded)

    async def ask(self, member: Member, asked: Asked) -> Answered:
        """What it answers. Raises `UnreachableError`."""
        return await self._wire.ask(member.address, member.key, asked)

    async def ask_any(self, asked: Asked) -> Answered:
        """What one of them answers, if possible one that is loaded. Raises `NoReplicaError`."""
        members = await self.members()
        best = [member for member in members if member.loaded] or members
        for member in random.sample(best, len(best)):
            try:
                return await self.ask(member, asked)
            except UnreachableError:  # gone, and not missed yet
                continue
        raise NoReplicaError

    async def ask_all(self, asked: Asked, which: Callable[[Member], bool] = lambda _: True) -> list[Said]:
        """What each of them answers that does so within some seconds."""
        return await self.ask_these([member for member in await self.members() if which(member)], asked)

    async def ask_these(self, members: Iterable[Member], asked: Asked) -> list[Said]:
        """What each of these answers that does so within some seconds."""

        async def one(member: Member) -> Said | None:
            try:
                answer = await self._wire.ask(member.address, member.key, asked, within=_TOGETHER_S)
            except UnreachableError:
                return None
            return Said(member, answer)

        return [said for said in await asyncio.gather(*map(one, members)) if said is not None]

    async def owner(self, session_id: str) -> Member:
        """The replica that a session's id names. Raises `NotFoundError` where it is gone."""
        id = replica_of(session_id)
        if id not in self._known:
            await self.members()
        found = self._known.get(id)
        if found is None:
            raise NotFoundError("There is no such session; it may have ended.")
        return found

    async def ask_owner(self, session_id: str, asked: Asked) -> Answered:
        """What the replica answers that has this session. Raises `NotFoundError` where it is gone."""
        member = await self.owner(session_id)
        try:
            return await self.ask(member, asked)
        except UnreachableError:
            raise NotFoundError(
                "The replica that ran this session is gone, and the session with it: open another one."
            ) from None

    @asynccontextmanager
    async def asking(self, member: Member, asked: Asked) -> AsyncIterator[Answering]:
        """Its answer as it comes. Raises `UnreachableError`."""
        async with self._wire.asking(member.address, member.key, asked) as answer:
            yield answer
