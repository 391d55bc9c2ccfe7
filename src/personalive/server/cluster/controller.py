"""What all replicas must agree on, in one place: the references, the pipeline to have, who is there.

It runs as a deployment of one replica that needs no machine of its own. If it is lost, it starts again empty: the
replicas tell it within a second who they are and what pipeline was asked for; references have to be given again.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from personalive.server.cluster.messages import Kept, Member, Orders, Wanted

KEPT = 1024
KEPT_BYTES = 1024 * 2**20
SILENCE_S = 5.0
"""A replica that says nothing for so long is gone."""


class Ledger:
    """Keeps the `KEPT` references used last, `KEPT_BYTES` at most, and always the default."""

    def __init__(
        self,
        wanted: Wanted | None = None,
        *,
        awaits_reference: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`wanted` is what to begin with. `awaits_reference`: a first one is about to be given."""
        self._wanted = wanted or Wanted(1)
        self._members: dict[str, tuple[Member, float]] = {}
        self._kept: OrderedDict[str, Kept] = OrderedDict()  # used last comes last
        self._default: str | None = None
        self._awaits_reference = awaits_reference
        self._stopping = False
        self._clock = clock

    # -- who is there

    async def beat(self, member: Member) -> Orders:
        """A replica tells of itself, and hears what to do."""
        if member.stage == "serving" and member.id not in self._members:
            self._awaits_reference = False  # this ledger has been started anew: nobody gives it once more
        self._members[member.id] = (member, self._clock())
        if member.wanted.version > self._wanted.version:  # this ledger has been started anew
            self._wanted = member.wanted
        elsewhere = any(
            other.loaded and other.id != member.id and other.wanted.version == self._wanted.version
            for other in await self.members()
        )
        return Orders(self._wanted, elsewhere, self._stopping)

    async def leave(self, id: str) -> None:
        """A replica goes."""
        self._members.pop(id, None)

    async def members(self) -> list[Member]:
        """Every replica that was heard of lately, in the order of their coming."""
        now = self._clock()
        silent = [id for id, (_, at) in self._members.items() if now - at > SILENCE_S]
        for id in silent:
            del self._members[id]
        return [member for member, _ in self._members.values()]

    # -- what they are to do

    async def want(self, pipeline_id: str | None, load_params: Mapping[str, Any]) -> Wanted:
        """Every replica is to have this pipeline, also those that come later; None: none."""
        self._wanted = Wanted(self._wanted.version + 1, pipeline_id, dict(load_params))
        return self._wanted

    async def wanted(self) -> Wanted:
        """What every replica is to have."""
        return self._wanted

    async def stop(self) -> None:
        """Every replica is to end its sessions and to take no more."""
        self._stopping = True

    # -- references

    async def keep(self, kept: Kept) -> None:
        """Keep a reference, and make it the default."""
        self._kept[kept.id] = kept
        self._kept.move_to_end(kept.id)
        self._default, self._awaits_reference = kept.id, False
        while len(self._kept) > 1 and (len(self._kept) > KEPT or self._bytes() > KEPT_BYTES):
            del self._kept[next(id for id in self._kept if id != self._default)]

    async def default(self) -> str | None:
        """The reference of sessions that name none: the one given last."""
        return self._default

    async def awaits_reference(self) -> bool:
        """Whether the reference that the service was started with has not been taken yet."""
        return self._awaits_reference

    async def reference(self, id: str) -> Kept | None:
        """All of a reference; it counts as used now."""
        kept = self._kept.get(id)
        if kept is not None:
            self._kept.move_to_end(id)
        return kept

    async def look_at(self, id: str) -> Kept | None:
        """What is known of a reference, without the picture's own bytes."""
        kept = self._kept.get(id)
        return None if kept is None else self._told(kept)

    async def references(self) -> list[Kept]:
        """What is known of every reference, the one used last first; neither pictures nor thumbnails."""
        return [replace(self._told(kept), thumbnail=b"") for kept in reversed(self._kept.values())]

    async def forget(self, id: str) -> bool:
        """Drop a reference. Whether there was one."""
        if self._default == id:
            self._default = None
        return self._kept.pop(id, None) is not None

    def _told(self, kept: Kept) -> Kept:
        return replace(kept, data=b"", info={**kept.info, "default": kept.id == self._default})

    def _bytes(self) -> int:
        return sum(len(kept.data) for kept in self._kept.values())
