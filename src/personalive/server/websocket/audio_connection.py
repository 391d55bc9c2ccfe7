"""The sound of one WebSocket: the driver's in, and out what the session sends, as late as its picture."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

from personalive.errors import InputError
from personalive.server.sessions.session import ServerSession
from personalive.server.sessions.session_audio import SentAudio
from personalive.server.websocket.audio_codecs import OPUS_DELAY_US, OpusDecoder, OpusEncoder
from personalive.server.websocket.flow_control import FlowControl
from personalive.server.websocket.media_message import MediaKind, MediaMessage

_MAX_PENDING = 5
"""Blocks of sound, 20 ms each, that may wait for the socket; the oldest are left out."""


class AudioConnection:
    """Sound both ways, while the session's sound is on. Use it on the event loop only."""

    def __init__(
        self, session: ServerSession, flow: FlowControl, send: Callable[[bytes], Awaitable[None]]
    ) -> None:
        """`flow` says whether the client can take more; `send` writes a message to the socket."""
        self._session, self._flow, self._send = session, flow, send
        self._decoder, self._encoder = OpusDecoder(), OpusEncoder()
        # Not those of the video, behind whose frames sound would wait.
        self._decoder_thread = ThreadPoolExecutor(1, "websocket-sound-decoder")
        self._encoder_thread = ThreadPoolExecutor(1, "websocket-sound-encoder")
        self._blocks: deque[SentAudio] = deque(maxlen=_MAX_PENDING)
        self._block_ready = asyncio.Event()
        self._received_timestamp = self._sent_timestamp = -1

    async def receive(self, message: MediaMessage) -> None:
        """Take a packet of the client. It is left out while the session's sound is off.

        Raises `InputError` for sound that cannot be decoded, or whose timestamps do not increase.
        """
        audio = self._session.audio
        if not audio.enabled:
            return
        if message.timestamp <= self._received_timestamp:
            raise InputError("The timestamps of the sound must increase.")
        self._received_timestamp = message.timestamp
        received = await asyncio.get_running_loop().run_in_executor(
            self._decoder_thread, self._decoder.decode, message.payload, message.timestamp
        )
        if received is None:
            audio.dropped += 1
        else:
            audio.put(received.frame, received.source_time)

    async def send_until_cancelled(self) -> None:
        """Send what the session sends. Sound for which the way is not free is left out: it must not be late."""
        unsubscribe = self._session.audio.add_listener(self._on_block)
        try:
            while True:
                await self._block_ready.wait()
                self._block_ready.clear()
                while self._blocks:
                    block = self._blocks.popleft()
                    if self._flow.may_send_audio(time.monotonic()):
                        await self._send_block(block)
        finally:
            unsubscribe()

    def close(self) -> None:
        """Let the threads end."""
        self._decoder_thread.shutdown(wait=False)
        self._encoder_thread.shutdown(wait=False)

    def _on_block(self, block: SentAudio) -> None:
        self._blocks.append(block)
        self._block_ready.set()

    async def _send_block(self, block: SentAudio) -> None:
        packet = await asyncio.get_running_loop().run_in_executor(
            self._encoder_thread, self._encoder.encode, block.samples
        )
        due = round(1e6 * (block.due_at - self._session.opened_monotonic)) - OPUS_DELAY_US
        self._sent_timestamp = max(due, self._sent_timestamp + 1)
        self._flow.on_audio_sent(len(packet))
        await self._send(MediaMessage(MediaKind.AUDIO, self._sent_timestamp, packet).pack())
