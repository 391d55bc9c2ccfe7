"""Driving frames, and their sound, of a WHEP server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import av
from aiortc import MediaStreamTrack, RTCPeerConnection
from aiortc.mediastreams import MediaStreamError

from personalive.live.capture import NoticeHandler
from personalive.live.clip_sound import SoundHandler
from personalive.live.webrtc_link import LinkError, WebRtcLink
from personalive.server.webrtc.audio_jitter_buffer import use_audio_jitter_buffer
from personalive.server.webrtc.output_tracks import OPUS_DELAY_S
from personalive.server.webrtc.sender_reports import ReceivedClock

_RETRY_S = 2.0
_SILENCE_S = 5.0
"""Seconds without a frame after which the stream counts as lost."""

VideoHandler = Callable[[av.VideoFrame, float | None], None]
"""Called with a frame and the time at which it was captured, by the sender's clock; None where it is unknown."""


class WhepSource:
    """Receives a stream, and connects again when it is lost. Use it on the event loop only."""

    def __init__(
        self,
        url: str,
        on_frame: VideoHandler,
        on_notice: NoticeHandler,
        on_sound: SoundHandler | None = None,
    ) -> None:
        """Prepare to receive from `url`; with `on_sound`, its sound too."""
        self._url = url
        self._on_frame = on_frame
        self._on_notice = on_notice
        self._on_sound = on_sound
        self._clocks: dict[str, ReceivedClock] = {}
        self._listening: asyncio.Task[None] | None = None
        self._sounds: asyncio.Queue[MediaStreamTrack] = asyncio.Queue()
        self._tracks: asyncio.Queue[MediaStreamTrack] = asyncio.Queue()
        self._link: WebRtcLink | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connect, and return once connected. Raises `LinkError`, also where there is no sound but should be."""
        track = await self._connect()
        if self._on_sound is not None and self._listening is None:
            raise LinkError(f"{self._url} sends no sound: leave --sound out, or take that of a --microphone.")
        self._task = asyncio.get_running_loop().create_task(self._run(track), name="whep")

    async def stop(self) -> None:
        """End the connection. It may be called twice."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._stop_listening()
        if self._link is not None:
            await self._link.close()

    async def _connect(self) -> MediaStreamTrack:
        if self._link is not None:
            await self._link.close()
        self._stop_listening()
        self._tracks, self._sounds = asyncio.Queue(), asyncio.Queue()
        self._link = WebRtcLink(self._url, self._prepare)
        await self._link.open()
        try:
            track = await asyncio.wait_for(self._tracks.get(), _SILENCE_S)
        except TimeoutError:
            raise LinkError(f"{self._url} sends no video.") from None
        if not self._sounds.empty():  # both are there once the answer is
            self._listening = asyncio.get_running_loop().create_task(
                self._listen(self._sounds.get_nowait()), name="whep-sound"
            )
        return track

    def _stop_listening(self) -> None:
        if self._listening is not None:
            self._listening.cancel()
            self._listening = None

    def _prepare(self, connection: RTCPeerConnection) -> None:
        found = {"video": self._tracks, "audio": self._sounds}
        for kind in ("video",) if self._on_sound is None else ("video", "audio"):
            receiver = connection.addTransceiver(kind, direction="recvonly").receiver
            self._clocks[kind] = ReceivedClock(receiver)
            if kind == "audio":
                use_audio_jitter_buffer(receiver)
        connection.on("track", lambda track: found[track.kind].put_nowait(track))

    async def _listen(self, track: MediaStreamTrack) -> None:
        """Pass sound on until none comes any more."""
        assert self._on_sound is not None
        with contextlib.suppress(MediaStreamError):
            while True:
                frame = await track.recv()
                if isinstance(frame, av.AudioFrame):
                    at = self._clocks["audio"].get_source_time(frame)
                    self._on_sound(frame, None if at is None else at - OPUS_DELAY_S)

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
                    self._on_frame(frame, self._clocks["video"].get_source_time(frame))
