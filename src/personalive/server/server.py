"""All parts of a running server, which are made and stopped together."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable

from personalive.pipelines.registry import AnyPipeline
from personalive.server.process.remote_pipeline import RemotePipeline, make_remote_class
from personalive.server.recordings.recording_manager import RecordingManager
from personalive.server.sessions.memory import set_mmap_threshold
from personalive.server.sessions.session_manager import SessionManager
from personalive.server.sessions.worker import PipelineWorker
from personalive.server.settings import Settings
from personalive.server.state import startup
from personalive.server.state.download_manager import DownloadManager
from personalive.server.state.hardware import make_gpu_environment, resolve_gpus
from personalive.server.state.pipeline_manager import PipelineManager
from personalive.server.state.reference_store import ReferenceStore
from personalive.server.telemetry import logs
from personalive.server.telemetry.loop_lag import LoopLagMonitor
from personalive.server.telemetry.metrics import Metrics
from personalive.server.webrtc.signaling import Signaling
from personalive.server.websocket.websocket_sessions import WebSocketSessions

_SWITCH_INTERVAL_S = 0.0005


class Server:
    """A running server. Make it on the event loop, call `start`, and always call `stop` afterwards."""

    def __init__(
        self,
        settings: Settings,
        *,
        make_references: Callable[[PipelineManager], ReferenceStore] = ReferenceStore,
        id_prefix: str = "",
        in_process: bool = False,
    ) -> None:
        """`make_references` makes the store of the portraits; every session's id begins with `id_prefix`.

        `in_process` keeps the pipeline in this process, where a debugger can follow it.
        """
        self.settings = settings
        self.metrics = Metrics()
        gpus = resolve_gpus(settings.gpus)
        self.workers = [PipelineWorker(gpu, make_gpu_environment(gpu)) for gpu in gpus or ("",)]
        self.sessions = SessionManager(
            self.workers,
            self.metrics,
            limit=settings.max_sessions,
            watermark=settings.watermark,
            id_prefix=id_prefix,
        )
        isolate = None if in_process else self._run_in_process
        self.pipelines = PipelineManager(self.workers, self.sessions, settings.load_params, isolate)
        self.references = make_references(self.pipelines)
        self.downloads = DownloadManager()
        self.recordings = RecordingManager(settings.recordings_dir)
        self.signaling = Signaling(settings, self.pipelines, self.references, self.sessions)
        self.websockets = WebSocketSessions(self.signaling)
        self.loop_lag = LoopLagMonitor(lambda: len(self.sessions) > 0) if settings.debug_stalls else None
        self.metrics.sessions.set_function(lambda: len(self.sessions))
        self.metrics.gpu_memory_bytes.set_function(self.pipelines.gpu_memory_bytes)

    def _run_in_process(self, pipeline: AnyPipeline, worker: PipelineWorker) -> AnyPipeline:
        def exited(lost: RemotePipeline, reason: str) -> None:
            with contextlib.suppress(RuntimeError):  # the event loop has ended
                self._loop.call_soon_threadsafe(self.pipelines.on_process_exit, worker, lost, reason)

        return make_remote_class(
            pipeline,
            environment=worker.environment,
            on_exit=exited,
            log_format=self.settings.log_format,
            log_level=self.settings.log_level,
        )

    @property
    def draining(self) -> bool:
        """Whether the server is about to stop, and accepts no more offers."""
        return self.signaling.draining

    @draining.setter
    def draining(self, draining: bool) -> None:
        self.signaling.draining = draining

    async def start(self) -> None:
        """Start to work, and to load the pipeline and portrait that the settings name."""
        self._loop = asyncio.get_running_loop()
        # Threads of many sessions share the interpreter lock: none should wait 5 ms for it each time.
        sys.setswitchinterval(_SWITCH_INTERVAL_S)
        set_mmap_threshold()
        for worker in self.workers:
            worker.start()
        if self.loop_lag is not None:
            self.loop_lag.start()
        self.recordings.start_recovery()
        await startup.start_loading(self.settings, self.pipelines, self.references)

    async def stop(self) -> None:
        """Notify the clients, end the sessions and free all resources, within the settings' `drain_s`."""
        self.draining = True
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._shut_down(), self.settings.drain_s)
        for worker in self.workers:
            if isinstance(worker.pipeline, RemotePipeline):  # it did not end in time
                worker.pipeline.connection.kill()
        for worker in self.workers:
            worker.stop(timeout=1.0)
        if self.loop_lag is not None:
            await self.loop_lag.stop()
        logs.event("server_stopped")

    async def _shut_down(self) -> None:
        await self.sessions.end_all("The server is stopping.", "shutdown")
        await asyncio.sleep(0.3)  # so that the last messages are sent
        await self.signaling.close()
        await self.downloads.stop()
        await self.recordings.stop()
        await self.pipelines.unload()
