"""The tracks that carry a session's frames and its sound to one viewer.

Timestamps are on the clock by which both are sent, not on the source's: then their relation, which is reported by
RTCP, stays the same when the delay changes. Receivers take many reports to follow one that changes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from fractions import Fraction
from typing import Protocol

import av
from aiortc import MediaStreamTrack
from aiortc.mediastreams import MediaStreamError

from personalive.server.sessions.audio_delay import SAMPLE_RATE
from personalive.server.sessions.playout_buffer import FrameCallback, SentFrame
from personalive.server.sessions.session_audio import AudioCallback, SentAudio

VIDEO_RATE = 90_000
OPUS_DELAY_S = 312 / SAMPLE_RATE
"""By how much later than its timestamp libopus has sound, the encoder of nearly all clients and of this server."""
_MAX_PENDING_BLOCKS = 75
"""Blocks of sound, 20 ms each, that may wait for the encoder; the oldest are dropped."""


class FrameSender(Protocol):
    """What an `OutputTrack` takes its frames from, such as a session."""

    opened_at: float
    """When it was opened, in seconds since the epoch; `opened_monotonic` is the same by `time.monotonic`."""
    opened_monotonic: float

    def add_frame_listener(self, listener: FrameCallback) -> Callable[[], None]:
        """Call `listener` with each frame on the event loop; return a function that ends that."""


class AudioBlocks(Protocol):
    """Sound that is sent in blocks, such as `SessionAudio`."""

    def add_listener(self, listener: AudioCallback) -> Callable[[], None]:
        """Call `listener` with each block on the event loop; return a function that ends that."""


class AudioSender(Protocol):
    """What an `OutputAudioTrack` takes its sound from, such as a session; the times are those of `FrameSender`."""

    opened_at: float
    opened_monotonic: float

    @property
    def audio(self) -> AudioBlocks:
        """The sound."""


class OutputTrack(MediaStreamTrack):
    """A track of a session's frames for one viewer; if the encoder is too slow, only the newest frame is kept."""

    kind = "video"

    def __init__(self, session: FrameSender) -> None:
        super().__init__()
        self._begin = session.opened_at, session.opened_monotonic
        self._frame: SentFrame | None = None
        self._frame_ready = asyncio.Event()
        self._pts = -1
        self._unsubscribe = session.add_frame_listener(self._on_frame)

    def _on_frame(self, frame: SentFrame) -> None:
        self._frame = frame
        self._frame_ready.set()

    async def recv(self) -> av.VideoFrame:
        """Return the next frame, whose timestamp says when it was due. Raises `MediaStreamError` once stopped."""
        while self._frame is None:
            if self.readyState != "live":
                raise MediaStreamError
            self._frame_ready.clear()
            await self._frame_ready.wait()
        taken, self._frame = self._frame, None
        frame = av.VideoFrame.from_ndarray(taken.planes, format="yuv420p")
        self._pts = max(round((taken.due_at - self._begin[1]) * VIDEO_RATE), self._pts + 1)
        frame.pts, frame.time_base = self._pts, Fraction(1, VIDEO_RATE)
        return frame

    def get_time(self, timestamp: int) -> float:
        """Return the time at which a frame with that timestamp was due, for RTCP."""
        return self._begin[0] + timestamp / VIDEO_RATE

    def stop(self) -> None:
        """Stop the track: it takes no more frames."""
        super().stop()
        self._unsubscribe()
        self._frame_ready.set()


class OutputAudioTrack(MediaStreamTrack):
    """A track of a session's sound for one viewer, as long as the session sends sound."""

    kind = "audio"

    def __init__(self, session: AudioSender) -> None:
        super().__init__()
        self._begin = session.opened_at, session.opened_monotonic
        self._blocks: deque[SentAudio] = deque(maxlen=_MAX_PENDING_BLOCKS)
        self._block_ready = asyncio.Event()
        self._pts = 0
        self._taken = (0, 0.0)  # the timestamp of the block that was taken last, and when it was due
        self._unsubscribe = session.audio.add_listener(self._on_block)

    def _on_block(self, block: SentAudio) -> None:
        self._blocks.append(block)
        self._block_ready.set()

    async def recv(self) -> av.AudioFrame:
        """Return the next 20 ms of sound. Raises `MediaStreamError` once stopped."""
        while not self._blocks:
            if self.readyState != "live":
                raise MediaStreamError
            self._block_ready.clear()
            await self._block_ready.wait()
        block = self._blocks.popleft()
        frame = av.AudioFrame.from_ndarray(block.samples.reshape(1, -1), format="s16", layout="stereo")
        frame.sample_rate = SAMPLE_RATE
        taken, due_at = self._taken
        if due_at:  # blocks that were left out leave a gap: timestamps stay in step with the picture's
            self._pts = taken + max(round((block.due_at - due_at) * SAMPLE_RATE), len(block.samples))
        frame.pts, frame.time_base = self._pts, Fraction(1, SAMPLE_RATE)
        self._taken = self._pts, block.due_at
        return frame

    def get_time(self, timestamp: int) -> float:
        """Return the time at which the sound with that timestamp was due, for RTCP."""
        taken, due_at = self._taken
        return self._begin[0] + due_at - self._begin[1] + (timestamp - taken) / SAMPLE_RATE - OPUS_DELAY_S

    def stop(self) -> None:
        """Stop the track: it takes no more sound."""
        super().stop()
        self._unsubscribe()
        self._block_ready.set()
