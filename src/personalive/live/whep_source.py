"""Driving frames of a WHEP server."""

from __future__ import annotations

import asyncio
import contextlib

import av
from aiortc import MediaStreamTrack, RTCPeerConnection
from aiortc.mediastreams import MediaStreamError

from personalive.live.capture import FrameHandler, NoticeHandler
from personalive.live.webrtc_link import LinkError, WebRtcLink

_RETRY_S = 2.0
_SILENCE_S = 5.0
"""Seconds without a frame after which the stream counts as lost."""


class WhepSource:
    """Receives a stream, and connects again when it is lost. Use it on the event loop only."""

    def __init__(self, url: str, on_frame: FrameHandler, on_notice: NoticeHandler) -> None:
        self._url = url
        self._on_frame = on_frame
        self._on_notice = on_notice
        self._tracks: asyncio.Queue[MediaStreamTrack] = asyncio.Queue()
        self._link: WebRtcLink | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connect, and return once connected. Raises `LinkError`."""
        track = await self._connect()
        self._task = asyncio.get_running_loop().create_task(self._run(track), name="whep")

    async def stop(self) -> None:
        """End the connection. It may be called twice."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._link is not None:
            await self._link.close()

    async def _connect(self) -> MediaStreamTrack:
        if self._link is not None:
            await self._link.close()
        self._tracks = asyncio.Queue()
        self._link = WebRtcLink(self._url, self._prepare)
        await self._link.open()
        try:
            return await asyncio.wait_for(self._tracks.get(), _SILENCE_S)
        except TimeoutError:
            raise LinkError(f"{self._url} sends no video.") from None

    def _prepare(self, connection: RTCPeerConnection) -> None:
        tracks = self._tracks
        connection.addTransceiver("video", direction="recvonly")
        connection.on("track", lambda track: tracks.put_nowait(track) if track.kind == "video" else None)

    async def _run(self, track: MediaStreamTrack | None) -> None:
        while True:
            if track is not None:
                await self._receive(track)
                self._on_notice(f"{self._url} was lost. Trying again.")
            try:
                track = await self._connect()
            except LinkError as error:
                track = None
                self._on_notice(f"{str(error).rstrip('.')}. Trying again.")
                await asyncio.sleep(_RETRY_S)

    async def _receive(self, track: MediaStreamTrack) -> None:
        """Pass frames on until none comes any more."""
        fresh = True
        with contextlib.suppress(MediaStreamError, TimeoutError):
            while True:
                frame = await asyncio.wait_for(track.recv(), _SILENCE_S)
                if isinstance(frame, av.VideoFrame):
                    if fresh:
                        self._on_notice(None)
                        fresh = False
                    self._on_frame(frame)
