"""All parts of a running server, made and ended together."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from personalive.serving.connections.calls import Calls
from personalive.serving.live.memory import gpu_memory_bytes
from personalive.serving.live.streams import Streams
from personalive.serving.live.worker import Worker
from personalive.serving.loading import preload
from personalive.serving.loading.downloads import Downloads
from personalive.serving.loading.host import PipelineHost
from personalive.serving.loading.references import References
from personalive.serving.observing import logs
from personalive.serving.observing.metrics import Metrics
from personalive.serving.observing.stalls import StallWatch
from personalive.serving.recordings.recorder import Recordings
from personalive.serving.settings import Settings


class Server:
    """Made on the event loop; `start` it, and `stop` it whatever happened in between."""

    def __init__(
        self,
        settings: Settings,
        *,
        references: Callable[[PipelineHost, Worker], References] = References,
        mark: str = "",
    ) -> None:
        """`references` makes what keeps the portraits; every session's id begins with `mark`."""
        self.settings = settings
        self.metrics = Metrics()
        self.worker = Worker()
        self.streams = Streams(
            self.worker, self.metrics, limit=settings.max_sessions, watermark=settings.watermark, mark=mark
        )
        self.host = PipelineHost(self.worker, self.streams, settings.load_params)
        self.references = references(self.host, self.worker)
        self.downloads = Downloads()
        self.recordings = Recordings(settings.recordings_dir)
        self.calls = Calls(settings, self.host, self.references, self.streams)
        self.stalls = StallWatch(lambda: len(self.streams) > 0) if settings.debug_stalls else None
        self.metrics.bind(lambda: len(self.streams), gpu_memory_bytes)

    @property
    def draining(self) -> bool:
        """Whether it is about to stop: it takes no offers any more."""
        return self.calls.draining

    @draining.setter
    def draining(self, draining: bool) -> None:
        self.calls.draining = draining

    async def start(self) -> None:
        """Begin to work, and to load what the settings name."""
        self.worker.start()
        if self.stalls is not None:
            self.stalls.start()
        await preload.begin(self.settings, self.host, self.references)

    async def stop(self) -> None:
        """Tell the clients, end the sessions and give everything back, within the settings' `drain_s`."""
        self.draining = True
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wind_up(), self.settings.drain_s)
        self.worker.stop(within=1.0)
        self.streams.close()
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
