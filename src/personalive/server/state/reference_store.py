"""The references that clients uploaded: kept as pictures, and fused for the loaded pipeline."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Any

from personalive.face.choice import parse_reference_face
from personalive.face.crop import ImageSize
from personalive.jobs.reference_image import ReferenceCrop
from personalive.out_of_memory import is_out_of_memory
from personalive.pipelines.base import Pipeline, Reference
from personalive.pipelines.fusing import fuse_reference
from personalive.server.errors import ConflictError, NotFoundError, ServiceUnavailableError
from personalive.server.sessions.memory import malloc_trim, release_memory
from personalive.server.sessions.worker import PipelineWorker
from personalive.server.state.pipeline_manager import PipelineManager
from personalive.server.state.reference_validation import StoredReference, make_reference_id, validate_picture
from personalive.server.telemetry import logs

MAX_REFERENCES = 64
MAX_REFERENCE_BYTES = 512 * 2**20
_MAX_FUSED = 8
"""Per pipeline: a fused reference may hold many megabytes on the device."""
_MAX_CONCURRENT_VALIDATIONS = 2
"""Pictures that are validated at the same time: each may take 120 MB once decoded."""
_RETRY_AFTER_S = 10
_PENDING_RETRY_S = 2
_TRIM_DELAY_S = 2.0
_REPLACED_MESSAGE = "Another pipeline was loaded meanwhile: try again."


class UnknownReferenceError(NotFoundError):
    """No reference has this id, or it was removed."""


class NoReferenceError(ConflictError):
    """A reference is needed, and none was added yet."""


_Key = tuple[str, int]
"""A reference's id, and the `id` of the pipeline that fused it; entries are dropped when that is unloaded."""


class ReferenceStore:
    """The store of references. Use it on the event loop only.

    It keeps the default and the `MAX_REFERENCES` used last, with at most `MAX_REFERENCE_BYTES` in all.
    """

    def __init__(self, pipelines: PipelineManager) -> None:
        self.default_id: str | None = None
        """The id of the reference for sessions that name none: the one added last."""
        self.pending_message: str | None = None
        """Why there is no default yet, while the portrait that the settings name is being prepared."""
        self.default_error: str | None = None
        """Why the portrait that the settings name could not be used."""
        self._pipelines = pipelines
        self._stored: OrderedDict[str, StoredReference] = OrderedDict()  # used last comes last
        self._fused: OrderedDict[_Key, Reference] = OrderedDict()
        self._validation_slots = asyncio.Semaphore(_MAX_CONCURRENT_VALIDATIONS)
        self._fuse_lock = asyncio.Lock()
        self._trim_timer: asyncio.TimerHandle | None = None
        pipelines.on_unloading.append(self._fused.clear)

    def __len__(self) -> int:
        return len(self._stored)

    def all(self) -> list[StoredReference]:
        """Return every reference, the one used last first."""
        return list(reversed(self._stored.values()))

    def get(self, id: str) -> StoredReference:
        """Return the reference with that id. Raises `UnknownReferenceError`."""
        try:
            return self._stored[id]
        except KeyError:
            raise UnknownReferenceError("There is no such reference; it may have been forgotten.") from None

    def remove(self, id: str) -> None:
        """Drop a reference; sessions that animate it keep theirs. Raises `UnknownReferenceError`."""
        self.get(id)
        del self._stored[id]
        self._evict_fused(id)
        if self.default_id == id:
            self.default_id = None
        logs.event("reference_deleted", reference=id)
        self._schedule_trim()

    def require_default(self) -> str:
        """Return the id of the default reference.

        Raises `ServiceUnavailableError` while it is being prepared, and `NoReferenceError` if there is none.
        """
        if self.default_id is not None:
            return self.default_id
        if self.pending_message is not None:
            raise ServiceUnavailableError(self.pending_message, retry_after=_PENDING_RETRY_S)
        why = "There is no reference yet" if self.default_error is None else self.default_error.rstrip(".")
        raise NoReferenceError(f"{why}: POST a picture to /api/v1/personalive/reference.")

    async def add(
        self,
        data: bytes,
        *,
        allow_no_face: bool = False,
        crop: bool = True,
        face: str = "auto",
        face_box: str | None = None,
    ) -> StoredReference:
        """Check a picture's bytes, fuse it, and make it the default. `crop`: show head and shoulders only.

        `face` and `face_box` are those of `AnimateJob`.

        Raises `MediaError` and its kinds, `NoFaceError`, `InputError` for a face that cannot be chosen, and
        `ConflictError` where no pipeline is loaded.
        """
        choice, box = parse_reference_face(face, face_box)
        size = _portrait_size(self._require_pipeline())
        known = self._stored.get(make_reference_id(data, cropped=crop, choice=choice, face_box=box))
        if known is not None and (allow_no_face or not known.allow_no_face):
            await self.get_fused(known.id)
            self._store(known)
            return known
        self._schedule_trim()
        async with self._validation_slots:
            examined = await asyncio.to_thread(
                validate_picture,
                data,
                size,
                allow_no_face=allow_no_face,
                cropped=crop,
                choice=choice,
                face_box=box,
            )
        stored = examined.stored
        async with self._fuse_lock:
            await self._fuse(stored, examined.crop, self._require_pipeline())
        self._store(stored)
        logs.event("reference_added", reference=stored.id, width=stored.width, height=stored.height)
        return stored

    async def get_fused(self, id: str | None = None, pipeline: Pipeline[Any, Any] | None = None) -> Reference:
        """Return a reference, fused by a pipeline. None means the default reference, and the loaded pipeline.

        Raises `UnknownReferenceError`, `NoReferenceError`, `NoFaceError` if this pipeline finds no face in it, and
        `ConflictError` if no pipeline is loaded.
        """
        chosen = self.require_default() if id is None else id
        stored = self.get(chosen)
        async with self._fuse_lock:
            pipeline = pipeline or self._require_pipeline()
            if chosen in self._stored:
                self._stored.move_to_end(chosen)
            key = (chosen, _pipeline_key(pipeline))
            known = self._fused.get(key)
            if known is not None:
                self._fused.move_to_end(key)
                return known
            async with self._validation_slots:
                framed = await asyncio.to_thread(stored.frame, _portrait_size(pipeline))
            return await self._fuse(stored, framed, pipeline)

    async def _fuse(
        self, stored: StoredReference, framed: ReferenceCrop, pipeline: Pipeline[Any, Any]
    ) -> Reference:
        worker = self._pipelines.get_worker(pipeline)
        if worker is None or framed.image.shape[1::-1] != _portrait_size(pipeline):
            raise ConflictError(_REPLACED_MESSAGE)
        try:
            reference = await worker.call(
                self._fuse_on_worker, worker, pipeline, framed, stored.allow_no_face
            )
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            message = "There is too little memory left to prepare this reference: try again later."
        else:
            self._cache_fused(stored.id, pipeline, reference)
            return reference
        # After the handler, since the error's traceback keeps alive what filled the memory.
        await worker.call(release_memory)
        raise ServiceUnavailableError(message, retry_after=_RETRY_AFTER_S)

    @staticmethod
    def _fuse_on_worker(
        worker: PipelineWorker, pipeline: Pipeline[Any, Any], framed: ReferenceCrop, lenient: bool
    ) -> Reference:
        """Fuse a reference. Runs on the worker's thread."""
        if worker.pipeline is not pipeline:
            raise ConflictError(_REPLACED_MESSAGE)
        return fuse_reference(pipeline, framed.image, framed.face_box, allow_no_face=lenient)

    def _cache_fused(self, id: str, pipeline: Pipeline[Any, Any], reference: Reference) -> None:
        if not self._pipelines.is_ready(pipeline):
            raise ConflictError(_REPLACED_MESSAGE)
        key = (id, _pipeline_key(pipeline))
        self._fused[key] = reference
        self._fused.move_to_end(key)
        own = [other for other in self._fused if other[1] == key[1]]
        for oldest in own[: max(len(own) - _MAX_FUSED, 0)]:
            del self._fused[oldest]

    def _evict_fused(self, id: str) -> None:
        for key in [key for key in self._fused if key[0] == id]:
            del self._fused[key]

    def _store(self, stored: StoredReference) -> None:
        self._stored[stored.id] = stored
        self._stored.move_to_end(stored.id)
        self.default_id = stored.id
        while len(self._stored) > 1 and (
            len(self._stored) > MAX_REFERENCES or self._total_bytes() > MAX_REFERENCE_BYTES
        ):
            oldest = next(id for id in self._stored if id != self.default_id)
            del self._stored[oldest]
            self._evict_fused(oldest)

    def _schedule_trim(self) -> None:
        """Free the memory of pictures later, when no more arrive: freeing it now would delay a session's frames."""
        if self._trim_timer is not None:
            self._trim_timer.cancel()
        self._trim_timer = asyncio.get_running_loop().call_later(_TRIM_DELAY_S, self._trim_memory)

    def _trim_memory(self) -> None:
        if self._pipelines.is_idle:
            asyncio.get_running_loop().run_in_executor(None, malloc_trim)

    def _total_bytes(self) -> int:
        return sum(len(stored.data) for stored in self._stored.values())

    def _require_pipeline(self) -> Pipeline[Any, Any]:
        pipeline = self._pipelines.pipeline
        if pipeline is None:
            raise ConflictError("No pipeline is loaded: POST /api/v1/pipeline/load first.")
        return pipeline


def _pipeline_key(pipeline: Pipeline[Any, Any]) -> int:
    return id(pipeline)


def _portrait_size(pipeline: Pipeline[Any, Any]) -> ImageSize:
    return pipeline.parameters.width, pipeline.parameters.height
