"""The pipeline of a live run, with the parts that a server has for it: its process, its worker, its session."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping

from personalive.errors import PipelineUnavailableError
from personalive.live.portraits import LivePortrait
from personalive.pipelines.base import Reference
from personalive.pipelines.fusing import fuse_reference
from personalive.pipelines.registry import AnyPipeline
from personalive.server.process.remote_pipeline import RemotePipeline, make_remote_class
from personalive.server.sessions.session import ServerSession
from personalive.server.sessions.session_manager import SessionManager
from personalive.server.sessions.worker import PipelineWorker
from personalive.server.state.pipeline_manager import PipelineManager
from personalive.server.telemetry.metrics import Metrics

_POLL_S = 0.05
_STOP_TIMEOUT_S = 10.0


class PipelineHost:
    """A pipeline and its one session. Use it on the event loop only."""

    def __init__(self, load_values: Mapping[str, object]) -> None:
        """Prepare to load a pipeline with these parameters by name."""
        self._load_values = dict(load_values)
        self._loop = asyncio.get_running_loop()
        self._worker = PipelineWorker()
        self._sessions = SessionManager([self._worker], Metrics(), limit=1)
        self._pipelines = PipelineManager([self._worker], self._sessions, load_values, self._isolate)
        self._fused: dict[str, Reference] = {}
        self._pipelines.on_unloading.append(self._fused.clear)

    def _isolate(self, pipeline: AnyPipeline, worker: PipelineWorker) -> AnyPipeline:
        def exited(lost: RemotePipeline, reason: str) -> None:
            with contextlib.suppress(RuntimeError):  # the event loop has ended
                self._loop.call_soon_threadsafe(self._pipelines.on_process_exit, worker, lost, reason)

        return make_remote_class(pipeline, on_exit=exited, log_level="warning")

    async def load(self, pipeline_id: str, on_loading: Callable[[], None]) -> None:
        """Load the pipeline. Raises `PersonaLiveError`, such as `PipelineUnavailableError`."""
        self._worker.start()
        await self._pipelines.load(pipeline_id, self._load_values)
        await self.wait_until_ready(on_loading)

    async def wait_until_ready(self, on_loading: Callable[[], None]) -> None:
        """Wait until the pipeline is loaded, or is loaded again; call `on_loading` once where that takes a while.

        Raises `PipelineUnavailableError`.
        """
        told = False
        while (status := self._pipelines.get_status()).status != "loaded":
            if status.status != "loading":
                raise PipelineUnavailableError(status.error or "The pipeline is not loaded.")
            if not told:
                on_loading()
                told = True
            await asyncio.sleep(_POLL_S)

    @property
    def notes(self) -> tuple[str, ...]:
        """How the pipeline runs here, and what may be wrong with its results, one sentence each."""
        status = self._pipelines.get_status()
        return (*status.notes, *status.warnings)

    async def fuse(self, portrait: LivePortrait) -> Reference:
        """Return the portrait, fused. Raises `NoFaceError` where this pipeline finds no face in it."""
        key = str(portrait.path)
        known = self._fused.get(key)
        if known is None:
            known = await self._worker.call(self._fuse, portrait)
            self._fused[key] = known
        return known

    def _fuse(self, portrait: LivePortrait) -> Reference:
        pipeline = self._worker.pipeline
        if pipeline is None:
            raise PipelineUnavailableError("The pipeline is being loaded: try again in a moment.")
        return fuse_reference(pipeline, portrait.crop.image, portrait.crop.face_box)

    async def open_session(self, portrait: LivePortrait, values: Mapping[str, object]) -> ServerSession:
        """Open the session with these run parameters. Raises `PersonaLiveError`."""
        reference = await self.fuse(portrait)
        pipeline = self._pipelines.pipeline
        if pipeline is None:
            raise PipelineUnavailableError("The pipeline is being loaded: try again in a moment.")
        return await self._sessions.open(pipeline, str(portrait.path), reference, values)

    async def stop(self) -> None:
        """End the session and the pipeline's process, by force where they take too long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STOP_TIMEOUT_S):
                if self._worker.is_alive:
                    await self._sessions.end_all("The run has ended.", "shutdown")
                    await self._pipelines.unload()
        if isinstance(self._worker.pipeline, RemotePipeline):
            self._worker.pipeline.connection.kill()
        if self._worker.is_alive:
            self._worker.stop(timeout=1.0)
