"""A replica's references: those of the whole cluster, each fetched when a session first needs it here."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from personalive.pipelines.base import Pipeline, Reference
from personalive.server.cluster.messages import Kept
from personalive.server.state.pipeline_manager import PipelineHost
from personalive.server.state.reference_store import References, UnknownReferenceError

Fetch = Callable[[str], Awaitable[Kept | None]]


class SharedReferences(References):
    """As `References`, but what is not here may be elsewhere, and the default is the cluster's."""

    def __init__(self, host: PipelineHost, fetch: Fetch) -> None:
        """`fetch` gives the reference of an id, or None where there is none."""
        self._default: str | None = None
        self._fetch = fetch
        self._fetching = asyncio.Lock()
        super().__init__(host)

    @property
    def default_id(self) -> str | None:
        """The reference of sessions that name none, as the ledger said last."""
        return self._default

    @default_id.setter
    def default_id(self, id: str | None) -> None:
        """Keeping a reference here does not make it the cluster's default: see `tell_default`."""

    def tell_default(self, id: str | None) -> None:
        """The ledger says what the default is. Any thread."""
        self._default = id

    async def fused(self, id: str | None = None, pipeline: Pipeline[Any, Any] | None = None) -> Reference:
        """As `References.fused`; a reference that another replica was given is fetched and looked at first."""
        chosen = self.default_id if id is None else id
        if chosen is not None and not self._has(chosen):
            async with self._fetching:
                if not self._has(chosen):
                    await self._bring(chosen)
        return await super().fused(chosen, pipeline)

    def _has(self, id: str) -> bool:
        try:
            self.get(id)
        except UnknownReferenceError:
            return False
        return True

    async def _bring(self, id: str) -> None:
        kept = await self._fetch(id)
        if kept is not None:  # what there is none of, is refused by `get`
            await self.add(kept.data, allow_no_face=kept.allow_no_face, crop=kept.crop)
