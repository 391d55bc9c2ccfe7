"""A client of a server's WebSocket that encodes and decodes with PyAV, as the page does with WebCodecs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Self

import httpx
import numpy as np
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from personalive.server.sessions.audio_delay import BLOCK_SAMPLES, CHANNELS
from personalive.server.sessions.playout_buffer import Planes
from personalive.server.websocket.audio_codecs import OpusEncoder
from personalive.server.websocket.media_message import MediaKind, MediaMessage, parse_media_message
from personalive.server.websocket.video_codecs import VideoCodec, VideoDecoder, VideoEncoder
from personalive.server.websocket.websocket_sessions import SUBPROTOCOL, TOKEN_PREFIX
from tests.server import barcode
from tests.server.camera import numbers

SIZE = (320, 240)


class WebSocketClient:
    """A client with one session. `seen` are the numbers in the frames that came, with None where there is none."""

    def __init__(
        self,
        url: str,
        codec: VideoCodec = "H264",
        *,
        key: str | None = None,
        acknowledges: bool = True,
        headers: dict[str, str] | None = None,
    ) -> None:
        self.url, self.codec, self.acknowledges = url, codec, acknowledges
        self.headers = dict(headers or {}) | ({} if key is None else {"Authorization": f"Bearer {key}"})
        self.id, self.token = "", ""
        self.seen: list[int | None] = []
        self.keyframes: list[bool] = []
        self.messages: list[dict[str, Any]] = []
        self.acknowledged: list[int] = []
        self.keyframe_requests = 0
        self.sound_timestamps: list[int] = []
        self.last_sent = self.last_received = -1
        self._socket: ClientConnection | None = None
        self._encoder, self._decoder = VideoEncoder(codec), VideoDecoder(codec)
        self._audio_encoder = OpusEncoder()
        self._scene = numbers()
        self._news = asyncio.Condition()
        self._reader: asyncio.Task[None] | None = None

    @property
    def socket(self) -> ClientConnection:
        assert self._socket is not None
        return self._socket

    @property
    def sounds(self) -> int:
        """How many packets of sound came."""
        return len(self.sound_timestamps)

    @property
    def close_code(self) -> int | None:
        return self.socket.protocol.close_code

    @property
    def close_reason(self) -> str | None:
        return self.socket.protocol.close_reason

    async def offer(self, **changes: Any) -> httpx.Response:
        """Open a session, if the server lets it."""
        body = {"drivingCodec": self.codec, "animatedCodec": self.codec, **changes}
        async with httpx.AsyncClient(base_url=self.url, headers=self.headers, timeout=30) as http:
            answer = await http.post("/api/v1/websocket/offer", json=body)
        if answer.status_code == 200:
            self.id, self.token = answer.json()["sessionId"], answer.json()["token"]
        return answer

    async def connect(self, **options: Any) -> None:
        address = f"ws{self.url.removeprefix('http')}/api/v1/websocket/{self.id}"
        protocols: Any = [SUBPROTOCOL, TOKEN_PREFIX + self.token]
        self._socket = await connect(address, subprotocols=protocols, max_size=2**22, **options)
        self._reader = asyncio.create_task(self._read())

    def encode(self, number: int, *, keyframe: bool = False) -> bytes:
        """A message with a frame that shows its number."""
        planes: Planes = self._scene(number, SIZE)
        timestamp = time.monotonic_ns() // 1000
        frame = self._encoder.encode(planes, timestamp, 1_000_000, keyframe=keyframe)
        assert frame is not None
        self.last_sent = timestamp
        return MediaMessage(MediaKind.VIDEO, timestamp, frame.data, frame.is_keyframe).pack()

    def encode_sound(self) -> bytes:
        """A message with 20 ms of silence."""
        packet = self._audio_encoder.encode(np.zeros((BLOCK_SAMPLES, CHANNELS), np.int16))
        return MediaMessage(MediaKind.AUDIO, time.monotonic_ns() // 1000, packet).pack()

    async def stream(
        self, frames: int, fps: float = 30.0, first: int = 0, *, with_sound: bool = False
    ) -> None:
        for number in range(first, first + frames):
            await self.socket.send(self.encode(number, keyframe=number == first))
            if with_sound:
                await self.socket.send(self.encode_sound())
            await asyncio.sleep(1 / fps)

    async def say(self, message: object) -> None:
        await self.socket.send(json.dumps(message))

    def told(self, kind: str) -> list[dict[str, Any]]:
        return [message for message in self.messages if message["type"] == kind]

    async def until(self, done: Any, what: str, within: float = 20.0) -> None:
        """Raises `TimeoutError`, saying what was waited for."""
        try:
            async with asyncio.timeout(within), self._news:
                await self._news.wait_for(done)
        except TimeoutError:
            raise TimeoutError(
                f"{what} did not come; {len(self.seen)} frames, {self.messages[-3:]}"
            ) from None

    async def closed(self, within: float = 20.0) -> tuple[int | None, str | None]:
        """The code and reason with which the server has closed."""
        assert self._reader is not None
        await asyncio.wait_for(asyncio.shield(self._reader), within)
        return self.close_code, self.close_reason

    async def _read(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for message in self.socket:
                await self._take(message)
        async with self._news:
            self._news.notify_all()

    async def _take(self, message: str | bytes) -> None:
        if isinstance(message, str):
            self.messages.append(json.loads(message))
        else:
            await self._take_media(parse_media_message(message))
        async with self._news:
            self._news.notify_all()

    async def _take_media(self, message: MediaMessage) -> None:
        if message.kind is MediaKind.ACKNOWLEDGEMENT:
            self.acknowledged.append(message.timestamp)
        elif message.kind is MediaKind.KEYFRAME_REQUEST:
            self.keyframe_requests += 1
        elif message.kind is MediaKind.AUDIO:
            self.sound_timestamps.append(message.timestamp)
        elif message.kind is MediaKind.VIDEO:
            self.keyframes.append(message.is_keyframe)
            self.last_received = message.timestamp
            frame = self._decoder.decode(message.payload, message.timestamp, is_keyframe=message.is_keyframe)
            if frame is not None:
                grey = np.ascontiguousarray(frame.reformat(format="gray8").to_ndarray())
                self.seen.append(barcode.read(np.asarray(grey, np.uint8)))
            if self.acknowledges:
                with contextlib.suppress(ConnectionClosed):  # messages before the end may still be there
                    await self.socket.send(MediaMessage(MediaKind.ACKNOWLEDGEMENT, message.timestamp).pack())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._socket is not None:
            await self._socket.close()
        if self._reader is not None:
            await asyncio.wait({self._reader}, timeout=5)
            self._reader.cancel()


@contextlib.asynccontextmanager
async def connected(url: str, codec: VideoCodec = "H264", **options: Any) -> AsyncIterator[WebSocketClient]:
    """A client whose session is open and whose WebSocket is connected."""
    async with WebSocketClient(url, codec, **options) as client:
        (await client.offer()).raise_for_status()
        await client.connect()
        yield client
