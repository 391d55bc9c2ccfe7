"""All parts of a running server, made and ended together."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable

from personalive.pipelines.registry import AnyPipeline
from personalive.server.process.remote_pipeline import RemotePipeline, isolated
from personalive.server.recordings.recording_manager import Recordings
from personalive.server.sessions.memory import return_large_blocks
from personalive.server.sessions.session_manager import Streams
from personalive.server.sessions.worker import Worker
from personalive.server.settings import Settings
from personalive.server.state import startup
from personalive.server.state.download_manager import Downloads
from personalive.server.state.hardware import gpu_environment, resolve_gpus
from personalive.server.state.pipeline_manager import PipelineHost
from personalive.server.state.reference_store import References
from personalive.server.telemetry import logs
from personalive.server.telemetry.loop_lag import StallWatch
from personalive.server.telemetry.metrics import Metrics
from personalive.server.webrtc.signaling import Calls

_SWITCH_S = 0.0005


class Server:
    """Made on the event loop; `start` it, and `stop` it whatever happened in between."""

    def __init__(
        self,
        settings: Settings,
        *,
        references: Callable[[PipelineHost], References] = References,
        mark: str = "",
        in_process: bool = False,
    ) -> None:
        """`references` makes what keeps the portraits; every session's id begins with `mark`.

        `in_process` keeps the pipeline in this process, where a debugger can follow it.
        """
        self.settings = settings
        self.metrics = Metrics()
        gpus = resolve_gpus(settings.gpus)
        self.workers = [Worker(gpu, gpu_environment(gpu)) for gpu in gpus or ("",)]
        self.streams = Streams(
            self.workers, self.metrics, limit=settings.max_sessions, watermark=settings.watermark, mark=mark
        )
        isolate = None if in_process else self._isolate
        self.host = PipelineHost(self.workers, self.streams, settings.load_params, isolate)
        self.references = references(self.host)
        self.downloads = Downloads()
        self.recordings = Recordings(settings.recordings_dir)
        self.calls = Calls(settings, self.host, self.references, self.streams)
        self.stalls = StallWatch(lambda: len(self.streams) > 0) if settings.debug_stalls else None
        self.metrics.bind(lambda: len(self.streams), self.host.gpu_memory_bytes)

    @property
    def worker(self) -> Worker:
        """The first worker, which is the only one where no GPUs are named."""
        return self.workers[0]

    def _isolate(self, pipeline: AnyPipeline, worker: Worker) -> AnyPipeline:
        def exited(lost: RemotePipeline, reason: str) -> None:
            with contextlib.suppress(RuntimeError):  # the event loop has ended
                self._loop.call_soon_threadsafe(self.host.exited, worker, lost, reason)

        return isolated(
            pipeline,
            environment=worker.environment,
            on_exit=exited,
            log_format=self.settings.log_format,
            log_level=self.settings.log_level,
        )

    @property
    def draining(self) -> bool:
        """Whether it is about to stop: it takes no offers any more."""
        return self.calls.draining

    @draining.setter
    def draining(self, draining: bool) -> None:
        self.calls.draining = draining

    async def start(self) -> None:
        """Begin to work, and to load what the settings name."""
        self._loop = asyncio.get_running_loop()
        # Threads of many sessions share the interpreter lock: what waits for it shall not wait 5 ms each time.
        sys.setswitchinterval(_SWITCH_S)
        return_large_blocks()
        for worker in self.workers:
            worker.start()
        if self.stalls is not None:
            self.stalls.start()
        self.recordings.sweep()
        await startup.begin(self.settings, self.host, self.references)

    async def stop(self) -> None:
        """Tell the clients, end the sessions and give everything back, within the settings' `drain_s`."""
        self.draining = True
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wind_up(), self.settings.drain_s)
        for worker in self.workers:
            if isinstance(worker.pipeline, RemotePipeline):  # it did not leave in time
                worker.pipeline.kill()
        for worker in self.workers:
            worker.stop(within=1.0)
        if self.stalls is not None:
            await self.stalls.stop()
        logs.event("server_stopped")

    async def _wind_up(self) -> None:
        await self.streams.end_all("The server is stopping.", "shutdown")
        await asyncio.sleep(0.3)  # for the last messages to leave
        await self.calls.close()
        await self.downloads.stop()
        await self.recordings.stop()
        await self.host.unload()
