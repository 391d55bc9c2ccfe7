"""The references that clients gave: kept as pictures, fused for whatever pipeline is loaded."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Any

from personalive.face.crop import Size
from personalive.media import Image
from personalive.out_of_memory import is_out_of_memory
from personalive.pipelines.base import Pipeline, Reference
from personalive.server.errors import BusyError, ConflictError, NotFoundError
from personalive.server.sessions.memory import give_back_memory, trim
from personalive.server.sessions.worker import Worker
from personalive.server.state.pipeline_manager import PipelineHost
from personalive.server.state.reference_validation import StoredReference, examine, identity
from personalive.server.telemetry import logs

KEPT = 64
KEPT_BYTES = 512 * 2**20
_KEPT_FUSED = 8
"""A fused reference may hold many megabytes on the device."""
_AT_ONCE = 2
"""Pictures looked at at the same time: each may take 120 MB once decoded."""
_RETRY_AFTER_S = 10
_SOON_S = 2
_TRIM_AFTER_S = 2.0
_REPLACED = "Another pipeline was loaded meanwhile: try again."


class UnknownReferenceError(NotFoundError):
    """An id that no reference has, or has any more."""


class NoReferenceError(ConflictError):
    """A reference is needed, and none was given yet."""


_Key = tuple[str, int]
"""A reference's id, and the `id` of the pipeline that fused it, which is forgotten when that is unloaded."""


class References:
    """Use it on the event loop only. Holds the `KEPT` used last, `KEPT_BYTES` at most, and always the default."""

    def __init__(self, host: PipelineHost) -> None:
        self.default_id: str | None = None
        """The reference of sessions that name none: the one given last."""
        self.awaited: str | None = None
        """Why there is no default yet, while one is being prepared that the settings name."""
        self.refused: str | None = None
        """Why the one that the settings name could not be used."""
        self._host = host
        self._stored: OrderedDict[str, StoredReference] = OrderedDict()  # used last comes last
        self._fused: OrderedDict[_Key, Reference] = OrderedDict()
        self._looking = asyncio.Semaphore(_AT_ONCE)
        self._fusing = asyncio.Lock()
        self._trimming: asyncio.TimerHandle | None = None
        host.on_unloading.append(self._fused.clear)

    def __len__(self) -> int:
        return len(self._stored)

    def all(self) -> list[StoredReference]:
        """Every reference, the one used last first."""
        return list(reversed(self._stored.values()))

    def get(self, id: str) -> StoredReference:
        """The reference of that id. Raises `UnknownReferenceError`."""
        try:
            return self._stored[id]
        except KeyError:
            raise UnknownReferenceError("There is no such reference; it may have been forgotten.") from None

    def forget(self, id: str) -> None:
        """Drop a reference; sessions that animate it keep theirs. Raises `UnknownReferenceError`."""
        self.get(id)
        del self._stored[id]
        self._forget_fused(id)
        if self.default_id == id:
            self.default_id = None
        logs.event("reference_forgotten", reference=id)
        self._trim_soon()

    def require_default(self) -> str:
        """The id of the default. Raises `BusyError` while it is being prepared, `NoReferenceError` without one."""
        if self.default_id is not None:
            return self.default_id
        if self.awaited is not None:
            raise BusyError(self.awaited, retry_after=_SOON_S)
        why = "There is no reference yet" if self.refused is None else self.refused.rstrip(".")
        raise NoReferenceError(f"{why}: POST a picture to /api/v1/personalive/reference.")

    async def add(self, data: bytes, *, allow_no_face: bool = False, crop: bool = True) -> StoredReference:
        """Check a picture's bytes, fuse it, and make it the default. `crop`: show head and shoulders only.

        Raises `MediaError` and its kinds, `NoFaceError`, and `ConflictError` where no pipeline is loaded.
        """
        size = _size(self._loaded())
        known = self._stored.get(identity(data, cropped=crop))
        if known is not None and (allow_no_face or not known.lenient):
            await self.fused(known.id)
            self._keep(known)
            return known
        self._trim_soon()
        async with self._looking:
            examined = await asyncio.to_thread(examine, data, size, allow_no_face=allow_no_face, cropped=crop)
        stored = examined.stored
        async with self._fusing:
            await self._fuse(stored, examined.framed, self._loaded())
        self._keep(stored)
        logs.event("reference_added", reference=stored.id, width=stored.width, height=stored.height)
        return stored

    async def fused(self, id: str | None = None, pipeline: Pipeline[Any, Any] | None = None) -> Reference:
        """A reference, by default the default, for that pipeline, by default the one that is loaded.

        Raises `UnknownReferenceError`, `NoReferenceError`, `NoFaceError` where this pipeline finds no face in it,
        and `ConflictError` where no pipeline is loaded.
        """
        chosen = self.require_default() if id is None else id
        stored = self.get(chosen)
        async with self._fusing:
            pipeline = pipeline or self._loaded()
            if chosen in self._stored:
                self._stored.move_to_end(chosen)
            key = (chosen, _identity(pipeline))
            known = self._fused.get(key)
            if known is not None:
                self._fused.move_to_end(key)
                return known
            async with self._looking:
                framed = await asyncio.to_thread(stored.framed, _size(pipeline))
            return await self._fuse(stored, framed, pipeline)

    async def _fuse(self, stored: StoredReference, framed: Image, pipeline: Pipeline[Any, Any]) -> Reference:
        worker = self._host.worker_of(pipeline)
        if worker is None or (framed.shape[1], framed.shape[0]) != _size(pipeline):
            raise ConflictError(_REPLACED)
        try:
            reference = await worker.call(self._fuse_now, worker, pipeline, framed, stored.lenient)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            message = "There is too little memory left to prepare this reference: try again later."
        else:
            self._remember(stored.id, pipeline, reference)
            return reference
        # Here, since the error's traceback keeps alive what filled the memory.
        await worker.call(give_back_memory)
        raise BusyError(message, retry_after=_RETRY_AFTER_S)

    @staticmethod
    def _fuse_now(worker: Worker, pipeline: Pipeline[Any, Any], framed: Image, lenient: bool) -> Reference:
        """On the worker's thread."""
        if worker.pipeline is not pipeline:
            raise ConflictError(_REPLACED)
        return pipeline.fuse(framed, allow_no_face=lenient)

    def _remember(self, id: str, pipeline: Pipeline[Any, Any], reference: Reference) -> None:
        if not self._host.has(pipeline):
            raise ConflictError(_REPLACED)
        key = (id, _identity(pipeline))
        self._fused[key] = reference
        self._fused.move_to_end(key)
        own = [other for other in self._fused if other[1] == key[1]]
        for oldest in own[: max(len(own) - _KEPT_FUSED, 0)]:
            del self._fused[oldest]

    def _forget_fused(self, id: str) -> None:
        for key in [key for key in self._fused if key[0] == id]:
            del self._fused[key]

    def _keep(self, stored: StoredReference) -> None:
        self._stored[stored.id] = stored
        self._stored.move_to_end(stored.id)
        self.default_id = stored.id
        while len(self._stored) > 1 and (len(self._stored) > KEPT or self._bytes() > KEPT_BYTES):
            oldest = next(id for id in self._stored if id != self.default_id)
            del self._stored[oldest]
            self._forget_fused(oldest)

    def _trim_soon(self) -> None:
        """Give back what pictures took, when no more of them come; it would keep a session's frames waiting."""
        if self._trimming is not None:
            self._trimming.cancel()
        self._trimming = asyncio.get_running_loop().call_later(_TRIM_AFTER_S, self._trim)

    def _trim(self) -> None:
        if self._host.idle:
            asyncio.get_running_loop().run_in_executor(None, trim)

    def _bytes(self) -> int:
        return sum(len(stored.data) for stored in self._stored.values())

    def _loaded(self) -> Pipeline[Any, Any]:
        pipeline = self._host.pipeline
        if pipeline is None:
            raise ConflictError("No pipeline is loaded: POST /api/v1/pipeline/load first.")
        return pipeline


def _identity(pipeline: Pipeline[Any, Any]) -> int:
    return id(pipeline)


def _size(pipeline: Pipeline[Any, Any]) -> Size:
    return pipeline.parameters.width, pipeline.parameters.height
