"""Frames of a camera or a network stream, by PyAV, with as little between the lens and us as can be."""

from __future__ import annotations

import contextlib
import errno
import threading
import time
from collections.abc import Iterator
from typing import cast
from urllib.parse import urlsplit

import av
import av.container
import av.error
from av.audio.stream import AudioStream
from av.packet import Packet
from av.video.stream import VideoStream

from personalive.live.clip_sound import SoundHandler, decode_sound
from personalive.live.devices import SourceError
from personalive.live.packet_queue import PacketQueue
from personalive.live.source_spec import SourceSpec
from personalive.media.tracks import select_audio_stream

_OPEN_TIMEOUT_S = 10.0
_READ_TIMEOUT_S = 5.0
"""Seconds without a packet after which a stream counts as lost."""
_SEGMENTED_FORMATS = {"hls", "dash"}
"""Formats that deliver seconds of video at once, so that frames must be spaced by their times."""
_UNTIMED_FORMATS = {"mpjpeg", "mjpeg"}
"""Formats without times, for which FFmpeg invents some: the time of arrival is the only one there is."""
_MAX_LATE_S = 0.25
"""Seconds by which a paced frame may be late; then the pace is set by it."""
_JOIN_TIMEOUT_S = 2.0
_LOW_LATENCY = {"fflags": "nobuffer", "flags": "low_delay"}
_RTSP = {"rtsp_flags": "prefer_tcp", "max_delay": "100000", "reorder_queue_size": "16"}


def open_stream(spec: SourceSpec) -> av.container.InputContainer:
    """Open a network stream. Raises `SourceError`, which says what to do."""
    scheme = urlsplit(spec.value).scheme.lower()
    options = dict(_LOW_LATENCY)
    if scheme.startswith("rtsp"):
        options |= _RTSP
    else:
        # A redirect or a playlist may name no local file.
        options["protocol_whitelist"] = "http,https,tls,tcp,crypto"
    try:
        return av.open(spec.value, options=options, timeout=(_OPEN_TIMEOUT_S, _READ_TIMEOUT_S))
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise SourceError(_explain_open_error(spec, error)) from error


def _explain_open_error(spec: SourceSpec, error: Exception) -> str:
    if isinstance(error, av.error.HTTPUnauthorizedError | av.error.HTTPForbiddenError):
        return f"{spec.name} wants a user and password: put them into the address (user:password@host)."
    if isinstance(error, av.error.HTTPNotFoundError):
        return f"{spec.name} is not found there: check the path of the address."
    if isinstance(error, ConnectionRefusedError):
        return f"{spec.name} cannot be reached: nothing listens there. Check the address and its port."
    if isinstance(error, av.error.ExitError | TimeoutError):
        return f"{spec.name} does not answer within {_OPEN_TIMEOUT_S:g} s: check the address and the network."
    if _is_end(error) or isinstance(error, av.error.InvalidDataError):
        return f"{spec.name} is no video stream that can be read."
    return f"{spec.name} cannot be opened: {getattr(error, 'strerror', None) or error}."


class StreamReader:
    """Reads the frames of an open container. Use it on one thread, and call `close` there."""

    def __init__(
        self,
        container: av.container.InputContainer,
        name: str,
        stopping: threading.Event,
        on_sound: SoundHandler | None = None,
    ) -> None:
        """Read `container`, called `name` in messages, until `stopping` is set.

        `on_sound` gets its sound meanwhile. Raises `SourceError`.
        """
        self._container = container
        self._name = name
        self._stopping = stopping
        if not container.streams.video:
            container.close()
            raise SourceError(f"{name} has no video.")
        self._video: VideoStream = container.streams.video[0]
        self._on_sound = on_sound
        self._audio = None if on_sound is None else select_audio_stream(container)
        if on_sound is not None and self._audio is None:
            container.close()
            raise SourceError(f"{name} has no sound: leave --sound out, or take that of a --microphone.")
        self._drain: threading.Thread | None = None
        self._closed = False
        formats = set(container.format.name.split(","))
        self._untimed = bool(formats & _UNTIMED_FORMATS)
        self._stored = container.duration is not None and container.duration > 0
        self._paced = self._stored or bool(formats & _SEGMENTED_FORMATS)

    @property
    def repeats(self) -> bool:
        """Whether it is a stored clip that ends, so that reading it again is expected."""
        return self._stored

    def __iter__(self) -> Iterator[av.VideoFrame]:
        """Yield frames as they come; of a stored clip, as they are due. Raises `SourceError` when it is lost."""
        try:
            yield from self._iter_paced() if self._paced else self._iter_newest()
        except (av.error.FFmpegError, OSError, ValueError) as error:
            if not self._stopping.is_set():
                raise SourceError(f"{self._name} was lost ({_short_reason(error)}).") from error

    def _iter_newest(self) -> Iterator[av.VideoFrame]:
        codec = self._video.codec_context
        queue: PacketQueue[Packet[VideoStream]] = PacketQueue(intra_only=bool(codec.codec.intra_only))
        self._drain = threading.Thread(target=self._read_packets, args=(queue,), name="packets", daemon=True)
        self._drain.start()
        while not self._stopping.is_set() and (packet := queue.get()) is not None:
            for frame in _decode(self._video, packet):
                if self._untimed:
                    frame.pts = None
                yield frame

    def _read_packets(self, queue: PacketQueue[Packet[VideoStream]]) -> None:
        try:
            for packet in self._video_packets():
                if self._stopping.is_set() or self._closed:
                    break
                if packet.size:
                    queue.put(packet)
            queue.end()
        except BaseException as error:
            queue.end(error)

    def _video_packets(self) -> Iterator[Packet[VideoStream]]:
        """Yield the packets of the picture; pass on the sound that lies between them."""
        if self._audio is None or self._on_sound is None:
            yield from self._container.demux(self._video)
            return
        for packet in self._container.demux(self._video, self._audio):
            if isinstance(packet.stream, VideoStream):
                yield cast("Packet[VideoStream]", packet)
            elif packet.size:
                for frame in decode_sound(self._audio, cast("Packet[AudioStream]", packet)):
                    self._on_sound(frame, frame.time)

    def _iter_paced(self) -> Iterator[av.VideoFrame]:
        start: float | None = None
        for packet in self._video_packets():
            for frame in _decode(self._video, packet):
                now = time.monotonic()
                at = frame.time or 0.0
                if start is None or now - start - at > _MAX_LATE_S:
                    start = now - at
                if self._stopping.wait(max(start + at - now, 0.0)):
                    return
                yield frame

    def close(self) -> None:
        """Close the container, unless the thread that reads it hangs: then it is left to the process's end."""
        self._closed = True
        if self._drain is not None:
            self._drain.join(_READ_TIMEOUT_S + 1.0 if not self._stopping.is_set() else _JOIN_TIMEOUT_S)
            if self._drain.is_alive():
                return
        with contextlib.suppress(av.error.FFmpegError, OSError, ValueError):
            self._container.close()


def _decode(video: VideoStream, packet: Packet[VideoStream]) -> list[av.VideoFrame]:
    """Decode a packet; one that is damaged gives no frame, as the next may be whole."""
    try:
        return video.codec_context.decode(packet)
    except av.error.InvalidDataError:
        return []


def _is_end(error: Exception) -> bool:
    """Return whether the other side closed the connection."""
    # FFmpeg calls that an I/O error where an answer gave no length.
    return isinstance(error, av.error.EOFError) or getattr(error, "errno", None) == errno.EIO


def _short_reason(error: Exception) -> str:
    if _is_end(error):
        return "the connection was closed"
    if isinstance(error, av.error.ExitError | TimeoutError):
        return "nothing came any more"
    return getattr(error, "strerror", None) or type(error).__name__
