"""A driver whose picture flashes while a click sounds, and a client that notes when both come back."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from types import TracebackType
from typing import Any, Self

import av
import httpx
import numpy as np
from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCPeerConnection,
    RTCRtpReceiver,
    RTCRtpSender,
    RTCSessionDescription,
)
from aiortc.mediastreams import MediaStreamError
from aiortc.rtp import RtpPacket
from numpy.typing import NDArray

from personalive.media import Image
from personalive.server.webrtc.audio_jitter_buffer import use_audio_jitter_buffer
from personalive.server.webrtc.sender_reports import ReceivedClock, align_reports

RATE = 48_000
PERIOD_S = 2.0
"""Seconds from one flash to the next."""
_SIZE = (320, 240)
_FLASH_FRAMES, _CLICK_S = 6, 0.03
_BLOCK = 960
_WHITE, _LOUD = 150, 4000
"""Mean brightness of a flash, and the sample at which a click begins."""
_APART_S = PERIOD_S / 2
"""Seconds by which a flash and its click may be apart, and two flashes are at least."""


@dataclass
class Event:
    """The beginning of a flash or a click: when it came, and when it was due by the sender's reports."""

    arrived: float
    reported: float | None


class FlashCamera(MediaStreamTrack):
    """A camera of `fps` frames per second whose picture is white for a moment every `PERIOD_S` seconds."""

    kind = "video"

    def __init__(self, begin: float, fps: int = 30) -> None:
        super().__init__()
        self._begin, self._fps = begin, fps
        self._index = -1

    async def recv(self) -> av.VideoFrame:
        self._index = max(self._index + 1, int((time.time() - self._begin) * self._fps))
        await asyncio.sleep(self._begin + self._index / self._fps - time.time())
        if self.readyState != "live":
            raise MediaStreamError
        shown = picture(is_flashing(self._index, self._fps))
        frame = av.VideoFrame.from_ndarray(shown, format="rgb24").reformat(format="yuv420p")
        frame.pts, frame.time_base = round(self._index / self._fps * 90_000), Fraction(1, 90_000)
        return frame

    def get_time(self, timestamp: int) -> float:
        """When that frame was captured."""
        return self._begin + timestamp / 90_000


class ClickMicrophone(MediaStreamTrack):
    """A microphone that hears a short tone at each flash of the camera."""

    kind = "audio"

    def __init__(self, begin: float) -> None:
        super().__init__()
        self._begin = begin
        self._first = max(round((time.time() - begin) * RATE) // _BLOCK, 0)
        self._index = self._first

    async def recv(self) -> av.AudioFrame:
        await asyncio.sleep(self._begin + (self._index + 1) * _BLOCK / RATE - time.time())
        if self.readyState != "live":
            raise MediaStreamError
        samples = clicks(self._index * _BLOCK, _BLOCK)
        frame = av.AudioFrame.from_ndarray(np.repeat(samples, 2)[None], format="s16", layout="stereo")
        frame.sample_rate = RATE
        frame.pts, frame.time_base = (self._index - self._first) * _BLOCK, Fraction(1, RATE)
        self._index += 1
        return frame

    def get_time(self, timestamp: int) -> float:
        """When that sample was captured."""
        return self._begin + (self._first * _BLOCK + timestamp) / RATE


def clicks(begin: int, count: int) -> NDArray[np.int16]:
    """The samples from `begin` on of a tone that sounds at each flash."""
    places = np.arange(begin, begin + count)
    within = places % round(PERIOD_S * RATE)
    tone = 16_000 * np.sin(2 * np.pi * 1000 * within / RATE)
    return np.where(within < _CLICK_S * RATE, tone, 0).astype(np.int16)


def is_flashing(index: int, fps: int) -> bool:
    """Whether that frame of a camera is white."""
    return index % round(PERIOD_S * fps) < _FLASH_FRAMES


def picture(flashing: bool) -> Image:
    """A frame of the camera, white or not."""
    picture = np.full((_SIZE[1], _SIZE[0], 3), 240 if flashing else 30, np.uint8)
    picture[::8] = 80
    return picture


class Watcher:
    """Notes the flashes, or the clicks, of one track that is received."""

    def __init__(self, receiver: RTCRtpReceiver) -> None:
        self.events: list[Event] = []
        self.packets = 0
        self._clock = ReceivedClock(receiver)
        self._receiver: Any = receiver
        inner: Any = receiver
        self._take, inner._handle_rtp_packet = inner._handle_rtp_packet, self._on_packet
        self._arrived: dict[int, float] = {}
        if receiver.track.kind == "audio":
            use_audio_jitter_buffer(receiver)

    async def _on_packet(self, packet: RtpPacket, arrival_time_ms: int) -> None:
        self.packets += 1
        self._arrived[packet.timestamp] = time.monotonic()
        while len(self._arrived) > 500:
            del self._arrived[next(iter(self._arrived))]
        await self._take(packet, arrival_time_ms=arrival_time_ms)

    async def watch(self) -> None:
        """Until the track ends."""
        with contextlib.suppress(MediaStreamError):
            while True:
                frame = await self._receiver.track.recv()
                begin = find_begin(frame)
                if begin is not None:
                    self._note(frame, begin)

    def _note(self, frame: av.VideoFrame | av.AudioFrame, begin: float) -> None:
        origin = self._receiver._RTCRtpReceiver__timestamp_mapper._origin
        arrived = self._arrived.get((origin + (frame.pts or 0)) % 2**32)
        if arrived is None:
            return
        reported = self._clock.get_source_time(frame)
        note_event(self.events, Event(arrived + begin, None if reported is None else reported + begin))


def note_event(events: list[Event], event: Event) -> None:
    """Add what is no part of the flash or click before it."""
    if not events or event.arrived - events[-1].arrived > _APART_S:
        events.append(event)


def find_begin(frame: av.VideoFrame | av.AudioFrame) -> float | None:
    """Seconds into the frame at which it flashes or clicks, None where it does not."""
    if isinstance(frame, av.AudioFrame):
        loud = np.abs(frame.to_ndarray().reshape(-1, 2)[:, 0].astype(int)) > _LOUD
        return float(loud.argmax()) / RATE if loud.any() else None
    return 0.0 if frame.to_ndarray(format="gray").mean() > _WHITE else None


@dataclass
class Offsets:
    """How much later than its flash each click came, in seconds: as it arrived, and by the server's reports."""

    arrived: list[float] = field(default_factory=list)
    reported: list[float] = field(default_factory=list)


class FlashClient:
    """A client of one session that sends flashes and clicks. Use it in an `async with` block."""

    def __init__(self, url: str, *, reports: bool = True, sends: bool = True) -> None:
        """`reports`: say by RTCP when frames were captured, as browsers do. Without it, say nothing of that.

        What does not send only watches.
        """
        self.http = httpx.AsyncClient(base_url=url, timeout=20)
        self.peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.channel = self.peer.createDataChannel("parameters")
        self.id = ""
        self.answer = ""
        self.watchers: dict[str, Watcher] = {}
        begin = time.time()
        self.tracks: list[FlashCamera | ClickMicrophone] = []
        if sends:
            self.tracks = [FlashCamera(begin), ClickMicrophone(begin)]
        self._reports = reports
        self._tasks: list[asyncio.Task[None]] = []

    async def connect(self, parameters: Mapping[str, object]) -> None:
        """Open a session with these initial parameters."""
        body = {"sdp": await self._offer("sendrecv"), "type": "offer", "initialParameters": dict(parameters)}
        answer = (await self.http.post("/api/v1/webrtc/offer", json=body)).raise_for_status().json()
        self.id = answer["sessionId"]
        await self._accept(answer["sdp"])

    async def connect_by(self, path: str) -> None:
        """Push by WHIP, or watch by WHEP, at this path."""
        offer = await self._offer("sendonly" if self.tracks else "recvonly")
        answer = await self.http.post(path, content=offer, headers={"Content-Type": "application/sdp"})
        assert answer.status_code == 201, answer.text
        self.id = answer.headers["x-session-id"]
        await self._accept(answer.text)

    async def _offer(self, direction: str) -> str:
        for track in self.tracks:
            sender = self.peer.addTransceiver(track, direction=direction).sender
            if self._reports:
                align_reports(sender, track.get_time)
            else:
                _silence_reports(sender)
        for kind in () if self.tracks else ("video", "audio"):
            self.peer.addTransceiver(kind, direction=direction)
        await self.peer.setLocalDescription(await self.peer.createOffer())
        return self.peer.localDescription.sdp

    async def _accept(self, sdp: str) -> None:
        self.answer = sdp
        await self.peer.setRemoteDescription(RTCSessionDescription(sdp, "answer"))
        for receiver in self.peer.getReceivers():
            if receiver.track is not None:
                watcher = self.watchers[receiver.track.kind] = Watcher(receiver)
                self._tasks.append(asyncio.create_task(watcher.watch()))

    async def figures(self) -> dict[str, Any]:
        """What the server says of the session."""
        answer = await self.http.get(f"/api/v1/sessions/{self.id}")
        found: dict[str, Any] = answer.raise_for_status().json()["figures"]
        return found

    def offsets(self, skip_s: float = 0.0) -> Offsets:
        """What came, but for the first `skip_s` seconds."""
        return compare(self.watchers["video"].events, self.watchers["audio"].events, skip_s)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(httpx.HTTPError):
            if self.tracks:
                await self.http.delete(f"/api/v1/webrtc/offer/{self.id}")
        for track in self.tracks:
            track.stop()
        await self.peer.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.http.aclose()


def compare(flashes: list[Event], clicks: list[Event], skip_s: float) -> Offsets:
    """Compare each flash with the click that is nearest to it."""
    found = Offsets()
    for flash in flashes:
        if flash.arrived < flashes[0].arrived + skip_s:
            continue
        click = min(clicks, key=lambda one: abs(one.arrived - flash.arrived), default=None)
        if click is None or abs(click.arrived - flash.arrived) > _APART_S:
            continue
        found.arrived.append(click.arrived - flash.arrived)
        if click.reported is not None and flash.reported is not None:
            found.reported.append(click.reported - flash.reported)
    return found


def _silence_reports(sender: RTCRtpSender) -> None:
    async def send_nothing(packets: object) -> None:
        del packets

    inner: Any = sender
    inner._send_rtcp = send_nothing


def describe(offsets: list[float]) -> str:
    """Median, p95 and the largest, in ms."""
    if not offsets:
        return "none"
    sizes = sorted(abs(offset) for offset in offsets)
    p95 = sizes[min(int(0.95 * len(sizes)), len(sizes) - 1)]
    return f"{1000 * statistics.median(offsets):+.1f} ms, {1000 * p95:.1f} ms, {1000 * sizes[-1]:.1f} ms"
