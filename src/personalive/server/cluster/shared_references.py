"""A replica's references: those of the whole cluster, each fetched when a session on the replica first needs it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from personalive.pipelines.base import Pipeline, Reference
from personalive.server.cluster.messages import StoredClusterReference
from personalive.server.state.pipeline_manager import PipelineManager
from personalive.server.state.reference_store import ReferenceStore, UnknownReferenceError

FetchReference = Callable[[str], Awaitable[StoredClusterReference | None]]


class SharedReferenceStore(ReferenceStore):
    """A `ReferenceStore` that fetches missing references from the controller and has the cluster's default."""

    def __init__(self, pipelines: PipelineManager, fetch: FetchReference) -> None:
        """`fetch` returns the reference of an id, or None if there is none."""
        self._default: str | None = None
        self._fetch = fetch
        self._fetching = asyncio.Lock()
        super().__init__(pipelines)

    @property
    def default_id(self) -> str | None:
        """The id of the reference for sessions that name none, as last set by `set_cluster_default`."""
        return self._default

    @default_id.setter
    def default_id(self, id: str | None) -> None:
        """Ignore the value: keeping a reference here does not make it the default. See `set_cluster_default`."""

    def set_cluster_default(self, id: str | None) -> None:
        """Set the cluster's default reference. Any thread may call it."""
        self._default = id

    async def get_fused(self, id: str | None = None, pipeline: Pipeline[Any, Any] | None = None) -> Reference:
        """Return a fused reference, as `ReferenceStore.get_fused` does; fetch and validate a missing one first."""
        chosen = self.default_id if id is None else id
        if chosen is not None and not self._has(chosen):
            async with self._fetching:
                if not self._has(chosen):
                    await self._fetch_missing(chosen)
        return await super().get_fused(chosen, pipeline)

    def _has(self, id: str) -> bool:
        try:
            self.get(id)
        except UnknownReferenceError:
            return False
        return True

    async def _fetch_missing(self, id: str) -> None:
        kept = await self._fetch(id)
        if kept is not None:  # an unknown id makes `get` raise
            await self.add(
                kept.data,
                allow_no_face=kept.allow_no_face,
                crop=kept.crop,
                face=kept.face,
                face_box=kept.face_box,
            )
