"""Flashes and clicks over a WebSocket: a client that sends them, and notes when both come back."""

from __future__ import annotations

import asyncio
import contextlib
import time
from types import TracebackType
from typing import Any

import av
import httpx
import numpy as np

from personalive.server.sessions.audio_delay import BLOCK_SAMPLES, SAMPLE_RATE
from personalive.server.sessions.playout_buffer import Planes, to_planes
from personalive.server.websocket.audio_codecs import OPUS_DELAY_US, OpusDecoder, OpusEncoder
from personalive.server.websocket.media_message import MediaKind, MediaMessage
from personalive.server.websocket.video_codecs import VideoDecoder
from tests.server.flashes import (
    Event,
    Offsets,
    clicks,
    compare,
    find_begin,
    is_flashing,
    note_event,
    picture,
)
from tests.server.websocket.client import WebSocketClient

_FPS = 30


class FlashWebSocketClient(WebSocketClient):
    """A client that sends flashes and clicks. Use it in an `async with` block, and `connect` in it."""

    def __init__(self, url: str) -> None:
        super().__init__(url, "VP8")
        self.flashes: list[Event] = []
        self.clicks: list[Event] = []
        self.http = httpx.AsyncClient(base_url=url, timeout=20)
        self._begin = time.monotonic()
        self._scenes: dict[bool, Planes] = {white: to_planes(picture(white)) for white in (False, True)}
        self._audio_encoder, self._audio_decoder = OpusEncoder(), OpusDecoder()
        self._flash_decoder = VideoDecoder("VP8")
        self._tasks: list[asyncio.Task[None]] = []

    async def drive(self) -> None:
        """Send both from now on."""
        self._tasks = [asyncio.create_task(self._send_frames()), asyncio.create_task(self._send_sound())]

    async def figures(self) -> dict[str, Any]:
        """What the server says of the session."""
        answer = await self.http.get(f"/api/v1/sessions/{self.id}")
        found: dict[str, Any] = answer.raise_for_status().json()["figures"]
        return found

    def offsets(self, skip_s: float = 0.0) -> Offsets:
        """What came, but for the first `skip_s` seconds."""
        return compare(self.flashes, self.clicks, skip_s)

    async def _send_frames(self) -> None:
        index = 0
        while True:
            index = max(index + 1, int((time.monotonic() - self._begin) * _FPS))
            await asyncio.sleep(self._begin + index / _FPS - time.monotonic())
            timestamp = round(1e6 * (self._begin + index / _FPS))
            frame = await asyncio.to_thread(
                self._encoder.encode,
                self._scenes[is_flashing(index, _FPS)],
                timestamp,
                1_000_000,
                keyframe=index == 1 or self.keyframe_requests > 0,
            )
            self.keyframe_requests = 0
            assert frame is not None
            message = MediaMessage(MediaKind.VIDEO, timestamp, frame.data, frame.is_keyframe)
            await self.socket.send(message.pack())

    async def _send_sound(self) -> None:
        index = int((time.monotonic() - self._begin) * SAMPLE_RATE) // BLOCK_SAMPLES
        while True:
            begin = index * BLOCK_SAMPLES
            await asyncio.sleep(self._begin + (begin + BLOCK_SAMPLES) / SAMPLE_RATE - time.monotonic())
            samples = np.repeat(clicks(begin, BLOCK_SAMPLES)[:, None], 2, axis=1)
            timestamp = round(1e6 * (self._begin + begin / SAMPLE_RATE)) - OPUS_DELAY_US
            packet = self._audio_encoder.encode(samples)
            await self.socket.send(MediaMessage(MediaKind.AUDIO, timestamp, packet).pack())
            index += 1

    async def _take_media(self, message: MediaMessage) -> None:
        arrived = time.monotonic()
        if message.kind is MediaKind.VIDEO:
            frame = self._flash_decoder.decode(
                message.payload, message.timestamp, is_keyframe=message.is_keyframe
            )
            self._note(self.flashes, frame, arrived, message.timestamp)
            with contextlib.suppress(OSError):
                await self.socket.send(MediaMessage(MediaKind.ACKNOWLEDGEMENT, message.timestamp).pack())
        elif message.kind is MediaKind.AUDIO:
            self.sound_timestamps.append(message.timestamp)
            heard = self._audio_decoder.decode(message.payload, message.timestamp)
            self._note(self.clicks, None if heard is None else heard.frame, arrived, message.timestamp)
        else:
            await super()._take_media(message)

    def _note(
        self, events: list[Event], frame: av.VideoFrame | av.AudioFrame | None, arrived: float, timestamp: int
    ) -> None:
        begin = None if frame is None else find_begin(frame)
        if begin is not None:
            note_event(events, Event(arrived + begin, timestamp / 1e6 + begin))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.http.aclose()
        await super().__aexit__(kind, error, trace)
