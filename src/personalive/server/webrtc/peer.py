"""A WebRTC connection: what it takes from its other side, and what it sends there."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable
from fractions import Fraction
from typing import Any

import av
from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCDataChannel,
    RTCIceCandidate,
    RTCIceServer,
    RTCPeerConnection,
    RTCSessionDescription,
)
from aiortc.mediastreams import MediaStreamError
from pydantic import BaseModel

from personalive.server.errors import BadRequestError, BusyError, HttpError
from personalive.server.sessions.playout_buffer import SentFrame
from personalive.server.sessions.session import Stream
from personalive.server.telemetry import logs
from personalive.server.webrtc import decoders
from personalive.server.webrtc.dtls import log_failed_handshakes
from personalive.server.webrtc.ice_candidates import RemoteCandidates, parse, without_candidates
from personalive.server.webrtc.ice_gathering import Gathering, has_candidates
from personalive.server.webrtc.jitter_buffer import take_newest
from personalive.server.webrtc.negotiation import Negotiation
from personalive.server.webrtc.ssrc_filter import keep_one_source

_CLOCK = Fraction(1, 90_000)
_PORTS_RETRY_S = 10


class Candidate(BaseModel):
    """A remote ICE candidate, as browsers give it. Empty: there are no more."""

    candidate: str = ""
    sdpMid: str | None = None  # noqa: N815 - the browsers' name
    sdpMLineIndex: int | None = None  # noqa: N815


class OutputTrack(MediaStreamTrack):
    """A stream's frames for one viewer: the newest, if the encoder is slower than they come."""

    kind = "video"

    def __init__(self, stream: Stream) -> None:
        super().__init__()
        self._frame: SentFrame | None = None
        self._news = asyncio.Event()
        self._pts = -1
        self._unsubscribe = stream.subscribe(self._take)

    def _take(self, frame: SentFrame) -> None:
        self._frame = frame
        self._news.set()

    async def recv(self) -> av.VideoFrame:
        """The next frame, with the stream's own timestamps. Raises `MediaStreamError` once stopped."""
        while self._frame is None:
            if self.readyState != "live":
                raise MediaStreamError
            self._news.clear()
            await self._news.wait()
        taken, self._frame = self._frame, None
        frame = av.VideoFrame.from_ndarray(taken.planes, format="yuv420p")
        self._pts = max(round(taken.time / _CLOCK), self._pts + 1)
        frame.pts, frame.time_base = self._pts, _CLOCK
        return frame

    def stop(self) -> None:
        """Take no more frames."""
        super().stop()
        self._unsubscribe()
        self._news.set()


class Peer:
    """One connection that belongs to a stream. Use it on the event loop only."""

    def __init__(
        self,
        stream: Stream,
        servers: list[dict[str, Any]],
        gathering: Gathering,
        on_gone: Callable[[str], Awaitable[None]],
    ) -> None:
        """`on_gone` hears, with the reason, when the other side has closed or cannot be reached any more."""
        decoders.install()
        self._stream = stream
        self._negotiation: Negotiation | None = None
        self._gathering = gathering
        self._connection = RTCPeerConnection(
            RTCConfiguration(iceServers=[RTCIceServer(**server) for server in servers])
        )
        self._remote = RemoteCandidates(self._connection, stream.id)
        self._on_gone = on_gone
        self._answering: asyncio.Task[str] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._output: OutputTrack | None = None
        self.connected = asyncio.Event()
        self.etag = f'"{secrets.token_urlsafe(9)}"'
        """Names the ICE session, as HTTP names a version of a resource."""
        self._connection.on("connectionstatechange", self._on_state)

    def take_media(self) -> None:
        """Feed the video that comes to the stream; sound is taken and dropped."""
        self._connection.on("track", self._on_track)

    def take_channel(self, on_channel: Callable[[RTCDataChannel], None]) -> None:
        """Hand over the data channels that the other side opens."""
        self._connection.on("datachannel", on_channel)

    async def answer(self, sdp: str, *, take: bool, send: bool) -> str:
        """Answer an offer, which sends video if we `take` it, and receives the stream's frames if we `send` them.

        Raises `BadRequestError` for one that does not, or is malformed, and `BusyError` where this side has no
        port left.
        """
        # Sockets that are being opened when it is cancelled would stay open: `close` waits for them.
        self._answering = asyncio.get_running_loop().create_task(self._answer(sdp, take=take, send=send))
        return await asyncio.shield(self._answering)

    async def _answer(self, sdp: str, *, take: bool, send: bool) -> str:
        try:
            sdp, candidates = without_candidates(sdp)
            self._negotiation = negotiation = Negotiation(sdp, take=take, send=send)
            await asyncio.sleep(0)  # others get their turn
            await self._connection.setRemoteDescription(RTCSessionDescription(negotiation.sdp, "offer"))
            take_newest(self._connection)
            self._prepare(negotiation)
            log_failed_handshakes(self._connection, self._stream.id)
            self._gathering.limit(self._connection)
            await asyncio.sleep(0)
            await self._connection.setLocalDescription(await self._connection.createAnswer())
            self._require_ports()
            for candidate in candidates:
                await self._try(candidate, None, candidate.sdpMLineIndex)
        except HttpError:
            raise
        except Exception as error:  # the parser raises whatever comes
            logs.event("offer_refused", session=self._stream.id, error=f"{type(error).__name__}: {error}")
            raise BadRequestError("The offer's SDP cannot be used: it is malformed.") from error
        if negotiation.notes:
            logs.event("offer_taken_in_part", session=self._stream.id, left_out="; ".join(negotiation.notes))
        return negotiation.complete(self._connection.localDescription.sdp)

    def _require_ports(self) -> None:
        if not has_candidates(self._connection):
            raise BusyError(
                "No UDP port is left for media: try again when a session or a viewer has gone, or serve with "
                "more --udp-ports.",
                retry_after=_PORTS_RETRY_S,
            )

    def _prepare(self, negotiation: Negotiation) -> None:
        """Send the stream's frames where the offer wants them, and take one layer where it has several."""
        for transceiver in self._connection.getTransceivers():
            if transceiver.mid == negotiation.sent_mid:
                self._output = OutputTrack(self._stream)
                transceiver.sender.replaceTrack(self._output)
                transceiver.direction = "sendrecv"
            if transceiver.mid == negotiation.taken_mid and negotiation.layers > 1:
                keep_one_source(transceiver.receiver)
                logs.event(
                    "one_layer_taken",
                    session=self._stream.id,
                    offered=negotiation.layers,
                    remedy="in OBS, Settings > Stream: switch Simulcast off, to send no more than is used",
                )

    def restarts(self, username: str) -> bool:
        """Whether the client's ICE user name is another than its offer's: it wants to begin ICE anew."""
        return self._negotiation is not None and username not in self._negotiation.ice_usernames

    async def add_candidate(self, given: Candidate) -> None:
        """A candidate that came after the offer. Raises `BadRequestError` for a bad one."""
        if not given.candidate.removeprefix("a=").removeprefix("candidate:").strip():
            return  # there are no more
        candidate = parse(given.candidate)
        if candidate is not None:
            await self._try(candidate, given.sdpMid, given.sdpMLineIndex)

    async def _try(self, candidate: RTCIceCandidate, mid: str | None, index: int | None) -> None:
        """Try a candidate of that section of the offer, unless the section was left out."""
        candidate.sdpMid = None if self._negotiation is None else self._negotiation.mid_of(mid, index)
        candidate.sdpMLineIndex = None
        if candidate.sdpMid is not None:
            await self._remote.add([candidate])

    async def close(self) -> None:
        """End the connection. May be called twice."""
        self._remote.close()
        self.connected.set()  # whoever waits for it need not any more
        if self._answering is not None:
            await asyncio.gather(self._answering, return_exceptions=True)
        for task in self._tasks:
            task.cancel()
        if self._output is not None:
            self._output.stop()
        with contextlib.suppress(
            Exception
        ):  # half-open connections fail in closing, and are gone all the same
            await self._connection.close()

    async def _on_state(self) -> None:
        state = self._connection.connectionState
        if state == "connected":
            self.connected.set()
        elif state in {"failed", "closed"}:
            await self._on_gone("peer_closed" if state == "closed" else "peer_lost")

    def _on_track(self, track: MediaStreamTrack) -> None:
        read = self._feed if track.kind == "video" else self._drain
        task = asyncio.get_running_loop().create_task(read(track), name=f"{track.kind}-in")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _feed(self, track: MediaStreamTrack) -> None:
        with contextlib.suppress(MediaStreamError):
            while True:
                frame = await track.recv()
                if isinstance(frame, av.VideoFrame):
                    self._stream.put(frame)

    async def _drain(self, track: MediaStreamTrack) -> None:
        """Unread, a track's queue grows without end."""
        with contextlib.suppress(MediaStreamError):
            while True:
                await track.recv()
