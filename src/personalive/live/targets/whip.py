"""A WHIP server: picture and sound are pushed to it as a broadcaster's camera would be."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

from aiortc import RTCPeerConnection

from personalive.live.targets.target import TargetEvents
from personalive.live.webrtc_link import LinkError, WebRtcLink
from personalive.server.sessions.listeners import Listeners
from personalive.server.sessions.playout_buffer import FrameCallback, SentFrame
from personalive.server.sessions.session_audio import AudioCallback, SentAudio
from personalive.server.webrtc.output_tracks import OutputAudioTrack, OutputTrack
from personalive.server.webrtc.sender_reports import align_reports

_RETRY_S = 2.0


class WhipAudio:
    """The sound of a `WhipTarget`, which outlives its connections. Use it on the event loop only."""

    def __init__(self) -> None:
        self._listeners: Listeners[SentAudio] = Listeners()

    def add_listener(self, listener: AudioCallback) -> Callable[[], None]:
        """Call `listener` with every block; return a function that ends that."""
        return self._listeners.add(listener)

    def put(self, block: SentAudio) -> None:
        """Take a block."""
        self._listeners.notify(block)


class WhipTarget:
    """Pushes frames to a WHIP server, and connects again when the connection is lost."""

    wants_still = True

    def __init__(self, events: TargetEvents, url: str, *, with_audio: bool = False) -> None:
        self.name = f"whip:{url}"
        self._url = url
        self._events = events
        self._loop = asyncio.get_running_loop()
        self.opened_at, self.opened_monotonic = time.time(), time.monotonic()
        self._listeners: Listeners[SentFrame] = Listeners()
        self._link: WebRtcLink | None = None
        self.audio = WhipAudio()
        self._with_audio = with_audio
        self._outputs: list[OutputTrack | OutputAudioTrack] = []
        self._task: asyncio.Task[None] | None = None

    def add_frame_listener(self, listener: FrameCallback) -> Callable[[], None]:
        """Call `listener` with every frame, on the event loop; return a function that ends that."""
        return self._listeners.add(listener)

    async def open(self) -> None:
        """Connect. Raises `LinkError`."""
        await self._connect()
        self._task = self._loop.create_task(self._reconnect(), name="whip")

    async def _connect(self) -> None:
        self._outputs = [OutputTrack(self), *([OutputAudioTrack(self)] if self._with_audio else [])]
        self._link = WebRtcLink(self._url, self._prepare)
        await self._link.open()

    def _prepare(self, connection: RTCPeerConnection) -> None:
        for track in self._outputs:
            sender = connection.addTransceiver(track, direction="sendonly").sender
            align_reports(sender, track.get_time)

    async def _disconnect(self) -> None:
        for track in self._outputs:
            track.stop()
        if self._link is not None:
            await self._link.close()

    async def _reconnect(self) -> None:
        while True:
            assert self._link is not None
            await self._link.lost.wait()
            self._events.on_notice(f"The connection to {self._url} was lost. Trying again.")
            while not await self._try_to_connect():
                await asyncio.sleep(_RETRY_S)
            self._events.on_notice(f"Connected to {self._url} again.")

    async def _try_to_connect(self) -> bool:
        await self._disconnect()
        try:
            await self._connect()
        except LinkError:
            return False
        return True

    def put(self, frame: SentFrame) -> None:
        """Take a frame, on any thread."""
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._notify, frame)

    def put_audio(self, block: SentAudio) -> None:
        """Take sound, on the event loop."""
        self.audio.put(block)

    def _notify(self, frame: SentFrame) -> None:
        self._listeners.notify(frame)
        self._events.on_delivered(self, frame, time.monotonic())

    async def close(self) -> str | None:
        """End the connection, and tell the server."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._disconnect()
        return None
