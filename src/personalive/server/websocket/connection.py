"""One WebSocket of a session: driving frames, sound and requests in, animated frames, sound and messages out."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from fastapi import WebSocket
from starlette.websockets import WebSocketDisconnect

from personalive.errors import InputError
from personalive.server.sessions.playout_buffer import SentFrame
from personalive.server.sessions.session import PIPELINE_LOST, Message, ServerSession
from personalive.server.webrtc.data_channel import DataChannel, SwitchReference
from personalive.server.websocket.audio_connection import AudioConnection
from personalive.server.websocket.flow_control import FlowControl
from personalive.server.websocket.media_message import MediaKind, MediaMessage, parse_media_message
from personalive.server.websocket.rate_limit import MessageRateLimit
from personalive.server.websocket.video_codecs import VideoCodec, VideoDecoder, VideoEncoder

_log = logging.getLogger(__name__)

_MAX_UNACKNOWLEDGED_S = 15.0
"""Seconds after which a client that acknowledges nothing is disconnected."""
_POLL_S = 1.0
_CLOSE_TIMEOUT_S = 2.0
_DEFECT = "The session ended because of an error in the server; see its log."
_KEYFRAME_REQUEST_INTERVAL_S = 0.5
_MAX_REASON_BYTES = 123
_CLOSE_CODES = {
    "shutdown": 1001,
    "invalid_message": 1007,
    "message_rate": 1008,
    "peer_lost": 1008,
    "defect": 1011,
    PIPELINE_LOST: 1012,
    "out_of_memory": 1013,
    "taken_over": 1013,
}
"""Close codes of RFC 6455 and its registry by the reason with which a session ended; 1000 for others."""


class _TextChannel:
    """The text messages of a WebSocket, with the interface of a data channel."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self.readyState = "open"
        self.bufferedAmount = 0
        self._wake = wake
        self._texts: deque[str] = deque()
        self._listeners: dict[str, Callable[..., object]] = {}

    def on(self, event: str, f: Callable[..., object]) -> None:
        self._listeners[event] = f

    def send(self, data: str) -> None:
        self._texts.append(data)
        self.bufferedAmount += len(data)
        self._wake()

    def pop_text(self) -> str | None:
        """Take the oldest message that is to be sent."""
        if not self._texts:
            return None
        text = self._texts.popleft()
        self.bufferedAmount -= len(text)
        return text

    def receive(self, text: str) -> None:
        self._listeners["message"](text)

    def close(self) -> None:
        self.readyState = "closed"
        self._listeners["close"]()


class WebSocketConnection:
    """A WebSocket that was accepted, and the session that it belongs to. Use it on the event loop only."""

    def __init__(
        self,
        websocket: WebSocket,
        session: ServerSession,
        switch_reference: SwitchReference,
        *,
        driving_codec: VideoCodec,
        animated_codec: VideoCodec,
        carries_sound: bool,
    ) -> None:
        """Without `carries_sound` sound is neither taken nor sent."""
        self._websocket = websocket
        self._session = session
        self._switch_reference = switch_reference
        self._decoder, self._encoder = VideoDecoder(driving_codec), VideoEncoder(animated_codec)
        # Frames are decoded in their order, and encoded in theirs.
        self._decoder_thread = ThreadPoolExecutor(1, "websocket-decoder")
        self._encoder_thread = ThreadPoolExecutor(1, "websocket-encoder")
        self._flow = FlowControl()
        self._audio = AudioConnection(session, self._flow, self._send) if carries_sound else None
        self._rate_limit = MessageRateLimit(time.monotonic())
        self._wake = asyncio.Event()
        self._channel = _TextChannel(self._wake.set)
        self._frame: SentFrame | None = None
        self._acknowledge: int | None = None
        self._sends_keyframe_request = False
        self._keyframe_requested_at = -1.0
        self._wants_keyframe = True
        self._received_timestamp = self._sent_timestamp = -1
        self._why_ended = ""
        self._is_gone = False

    async def run(self) -> None:
        """Serve the session until it ends or the client leaves, then end the session and close the WebSocket."""
        session = self._session
        DataChannel(self._channel, session, self._switch_reference)
        unsubscribe = session.add_frame_listener(self._on_frame)
        forget = session.add_message_listener(self._on_message)
        session.on_end.append(self._on_session_end)
        sender = asyncio.create_task(self._send_until_end(), name="websocket-out")
        receiver = asyncio.create_task(self._receive_until_end(), name="websocket-in")
        tasks = {sender, receiver}
        if self._audio is not None:
            tasks.add(asyncio.create_task(self._audio.send_until_cancelled(), name="websocket-sound-out"))
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            await self._end_session(tasks)
            await asyncio.wait({sender, receiver}, timeout=_CLOSE_TIMEOUT_S)
        finally:
            unsubscribe()
            forget()
            self._channel.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.shield(session.end("peer_closed"))
            if self._audio is not None:
                self._audio.close()
            self._decoder_thread.shutdown(wait=False)
            self._encoder_thread.shutdown(wait=False)

    async def _end_session(self, tasks: set[asyncio.Task[None]]) -> None:
        for task in tasks:
            error = task.exception() if task.done() and not task.cancelled() else None
            if error is not None and not isinstance(error, WebSocketDisconnect):
                _log.error("serving a WebSocket failed", exc_info=error)
                await self._session.end("defect", _DEFECT)
        await self._session.end("peer_closed")

    # -- from the session

    def _on_frame(self, frame: SentFrame) -> None:
        self._frame = frame  # the newest wins
        self._wake.set()

    def _on_message(self, message: Message) -> None:
        self._why_ended = message.get("error_message", self._why_ended)

    async def _on_session_end(self, session: ServerSession) -> None:
        del session
        self._wake.set()

    # -- from the client

    async def _receive_until_end(self) -> None:
        while True:
            message = await self._websocket.receive()
            if message["type"] == "websocket.disconnect":
                self._is_gone = True
                self._wake.set()
                return
            if not self._rate_limit.take(time.monotonic()):
                await self._session.end(
                    "message_rate", f"A client may send {MessageRateLimit.PER_SECOND} messages in a second."
                )
                return
            try:
                if (data := message.get("bytes")) is not None:
                    await self._receive_media(parse_media_message(data))
                else:
                    self._channel.receive(message["text"])
            except InputError as error:
                await self._session.end("invalid_message", str(error))
                return

    async def _receive_media(self, message: MediaMessage) -> None:
        now = time.monotonic()
        if message.kind is MediaKind.VIDEO:
            await self._receive_video(message)
        elif message.kind is MediaKind.AUDIO:
            if self._audio is not None:
                await self._audio.receive(message)
        elif message.kind is MediaKind.ACKNOWLEDGEMENT:
            self._flow.on_acknowledged(message.timestamp, now)
        elif message.kind is MediaKind.KEYFRAME_REQUEST:
            self._wants_keyframe = True

    async def _receive_video(self, message: MediaMessage) -> None:
        if message.timestamp <= self._received_timestamp:
            raise InputError("The timestamps of the video must increase.")
        self._received_timestamp = message.timestamp
        frame = await asyncio.get_running_loop().run_in_executor(
            self._decoder_thread,
            lambda: self._decoder.decode(message.payload, message.timestamp, is_keyframe=message.is_keyframe),
        )
        if frame is not None:
            self._session.put_frame(frame, message.timestamp / 1e6)
        else:
            now = time.monotonic()
            if now - self._keyframe_requested_at > _KEYFRAME_REQUEST_INTERVAL_S:
                self._keyframe_requested_at = now
                self._sends_keyframe_request = True
        self._acknowledge = message.timestamp
        self._wake.set()

    # -- to the client

    async def _send_until_end(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), _POLL_S)
            self._wake.clear()
            if self._is_gone:
                return
            await self._send_control()
            if self._session.ended:
                await self._close()
                return
            if self._flow.get_unacknowledged_s(time.monotonic()) > _MAX_UNACKNOWLEDGED_S:
                await self._session.end(
                    "peer_lost", f"The client acknowledged no frame for {_MAX_UNACKNOWLEDGED_S:g} s."
                )
            frame, self._frame = self._frame, None
            if frame is not None and self._flow.may_send(time.monotonic()):
                await self._send_frame(frame)

    async def _send_control(self) -> None:
        if self._acknowledge is not None:
            timestamp, self._acknowledge = self._acknowledge, None
            await self._send(MediaMessage(MediaKind.ACKNOWLEDGEMENT, timestamp).pack())
        if self._sends_keyframe_request:
            self._sends_keyframe_request = False
            await self._send(MediaMessage(MediaKind.KEYFRAME_REQUEST).pack())
        while (text := self._channel.pop_text()) is not None:
            await self._send(text)

    async def _send(self, message: str | bytes) -> None:
        try:
            if isinstance(message, str):
                await self._websocket.send_text(message)
            else:
                await self._websocket.send_bytes(message)
        except RuntimeError as error:  # the WebSocket was closed meanwhile, for a message that was too large
            raise WebSocketDisconnect(1006) from error

    async def _send_frame(self, frame: SentFrame) -> None:
        timestamp = self._next_timestamp(frame)
        keyframe, self._wants_keyframe = self._wants_keyframe, False
        encoded = await asyncio.get_running_loop().run_in_executor(
            self._encoder_thread,
            lambda: self._encoder.encode(frame.planes, timestamp, self._flow.bitrate, keyframe=keyframe),
        )
        if encoded is None:
            self._wants_keyframe = self._wants_keyframe or keyframe
            return
        self._flow.on_sent(timestamp, len(encoded.data), time.monotonic())
        message = MediaMessage(MediaKind.VIDEO, timestamp, encoded.data, encoded.is_keyframe)
        await self._send(message.pack())

    def _next_timestamp(self, frame: SentFrame) -> int:
        due = round(1e6 * (frame.due_at - self._session.opened_monotonic))
        self._sent_timestamp = max(due, self._sent_timestamp + 1)
        return self._sent_timestamp

    async def _close(self) -> None:
        why = self._why_ended.encode()[:_MAX_REASON_BYTES].decode(errors="ignore")
        with contextlib.suppress(RuntimeError):
            await self._websocket.close(_CLOSE_CODES.get(self._session.end_reason or "", 1000), why)
