"""A WebRTC connection to a client: the media that it receives and sends."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable
from fractions import Fraction
from typing import Any, Protocol

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

from personalive.server.errors import BadRequestError, HttpError, ServiceUnavailableError
from personalive.server.sessions.playout_buffer import FrameCallback, SentFrame
from personalive.server.sessions.session import ServerSession
from personalive.server.telemetry import logs
from personalive.server.webrtc import decoders
from personalive.server.webrtc.dtls import log_failed_handshakes
from personalive.server.webrtc.ice_candidates import RemoteCandidates, parse_candidate, split_candidates
from personalive.server.webrtc.ice_gathering import IceGathering, has_candidates
from personalive.server.webrtc.jitter_buffer import use_low_latency_jitter_buffer
from personalive.server.webrtc.negotiation import Negotiation
from personalive.server.webrtc.ssrc_filter import accept_one_ssrc

_TIME_BASE = Fraction(1, 90_000)
_PORTS_RETRY_S = 10


class Candidate(BaseModel):
    """A remote ICE candidate in the browsers' form. An empty one says that there are no more."""

    candidate: str = ""
    sdpMid: str | None = None  # noqa: N815 - the browsers' name
    sdpMLineIndex: int | None = None  # noqa: N815


class FrameSender(Protocol):
    """What an `OutputTrack` takes its frames from, such as a session."""

    def add_frame_listener(self, listener: FrameCallback) -> Callable[[], None]:
        """Call `listener` with each frame on the event loop; return a function that ends that."""


class OutputTrack(MediaStreamTrack):
    """A track of a session's frames for one viewer; if the encoder is too slow, only the newest frame is kept."""

    kind = "video"

    def __init__(self, session: FrameSender) -> None:
        super().__init__()
        self._frame: SentFrame | None = None
        self._frame_ready = asyncio.Event()
        self._pts = -1
        self._unsubscribe = session.add_frame_listener(self._on_frame)

    def _on_frame(self, frame: SentFrame) -> None:
        self._frame = frame
        self._frame_ready.set()

    async def recv(self) -> av.VideoFrame:
        """Return the next frame, with the session's own timestamps. Raises `MediaStreamError` once stopped."""
        while self._frame is None:
            if self.readyState != "live":
                raise MediaStreamError
            self._frame_ready.clear()
            await self._frame_ready.wait()
        taken, self._frame = self._frame, None
        frame = av.VideoFrame.from_ndarray(taken.planes, format="yuv420p")
        self._pts = max(round(taken.time / _TIME_BASE), self._pts + 1)
        frame.pts, frame.time_base = self._pts, _TIME_BASE
        return frame

    def stop(self) -> None:
        """Stop the track: it takes no more frames."""
        super().stop()
        self._unsubscribe()
        self._frame_ready.set()


class Peer:
    """One connection that belongs to a session. Use it on the event loop only."""

    def __init__(
        self,
        session: ServerSession,
        servers: list[dict[str, Any]],
        gathering: IceGathering,
        on_gone: Callable[[str], Awaitable[None]],
    ) -> None:
        """Make a connection. `on_gone` is called with the reason when the client has closed it or is lost."""
        decoders.register_decoders()
        self._session = session
        self._negotiation: Negotiation | None = None
        self._gathering = gathering
        self._connection = RTCPeerConnection(
            RTCConfiguration(iceServers=[RTCIceServer(**server) for server in servers])
        )
        self._remote_candidates = RemoteCandidates(self._connection, session.id)
        self._on_gone = on_gone
        self._answering: asyncio.Task[str] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._output: OutputTrack | None = None
        self.connected = asyncio.Event()
        self.etag = f'"{secrets.token_urlsafe(9)}"'
        """The HTTP entity tag of the ICE session."""
        self._connection.on("connectionstatechange", self._on_connection_state)

    def receive_media(self) -> None:
        """Pass the video that arrives to the session; sound is received and dropped."""
        self._connection.on("track", self._on_track)

    def accept_channels(self, on_channel: Callable[[RTCDataChannel], None]) -> None:
        """Call `on_channel` for each data channel that the client opens."""
        self._connection.on("datachannel", on_channel)

    async def answer(self, sdp: str, *, receive: bool, send: bool) -> str:
        """Answer an offer, to `receive` the client's video, to `send` it the session's frames, or both.

        Raises:
            BadRequestError: The offer does not allow that, or is malformed.
            ServiceUnavailableError: The server has no UDP port left.
        """
        # Cancelling it would leave sockets open that are just being opened, so it goes on and `close` waits for it.
        self._answering = asyncio.get_running_loop().create_task(
            self._make_answer(sdp, receive=receive, send=send)
        )
        return await asyncio.shield(self._answering)

    async def _make_answer(self, sdp: str, *, receive: bool, send: bool) -> str:
        try:
            sdp, candidates = split_candidates(sdp)
            self._negotiation = negotiation = Negotiation(sdp, receive=receive, send=send)
            await asyncio.sleep(0)  # lets other tasks run
            await self._connection.setRemoteDescription(RTCSessionDescription(negotiation.sdp, "offer"))
            use_low_latency_jitter_buffer(self._connection)
            self._attach_tracks(negotiation)
            log_failed_handshakes(self._connection, self._session.id)
            self._gathering.limit_time(self._connection)
            await asyncio.sleep(0)
            await self._connection.setLocalDescription(await self._connection.createAnswer())
            self._require_ports()
            for candidate in candidates:
                await self._add_remote_candidate(candidate, None, candidate.sdpMLineIndex)
        except HttpError:
            raise
        except Exception as error:  # the parser raises errors of many classes
            logs.event("offer_refused", session=self._session.id, error=f"{type(error).__name__}: {error}")
            raise BadRequestError("The offer's SDP cannot be used: it is malformed.") from error
        if negotiation.notes:
            logs.event("offer_taken_in_part", session=self._session.id, left_out="; ".join(negotiation.notes))
        return negotiation.build_answer(self._connection.localDescription.sdp)

    def _require_ports(self) -> None:
        if not has_candidates(self._connection):
            raise ServiceUnavailableError(
                "No UDP port is left for media: try again when a session or a viewer has ended, or serve with "
                "more --udp-ports.",
                retry_after=_PORTS_RETRY_S,
            )

    def _attach_tracks(self, negotiation: Negotiation) -> None:
        """Send the session's frames on the offer's section for them, and receive one layer where it has several."""
        for transceiver in self._connection.getTransceivers():
            if transceiver.mid == negotiation.sent_mid:
                self._output = OutputTrack(self._session)
                transceiver.sender.replaceTrack(self._output)
                transceiver.direction = "sendrecv"
            if transceiver.mid == negotiation.received_mid and negotiation.simulcast_layers > 1:
                accept_one_ssrc(transceiver.receiver)
                logs.event(
                    "one_layer_taken",
                    session=self._session.id,
                    offered=negotiation.simulcast_layers,
                    remedy="in OBS, Settings > Stream: switch Simulcast off, to send no more than is used",
                )

    def is_ice_restart(self, username: str) -> bool:
        """Return whether an ICE user name differs from the offer's: then the client asks for an ICE restart."""
        return self._negotiation is not None and username not in self._negotiation.ice_usernames

    async def add_candidate(self, candidate_init: Candidate) -> None:
        """Add a candidate that came after the offer. Raises `BadRequestError` for an invalid one."""
        if not candidate_init.candidate.removeprefix("a=").removeprefix("candidate:").strip():
            return  # there are no more
        candidate = parse_candidate(candidate_init.candidate)
        if candidate is not None:
            await self._add_remote_candidate(candidate, candidate_init.sdpMid, candidate_init.sdpMLineIndex)

    async def _add_remote_candidate(
        self, candidate: RTCIceCandidate, mid: str | None, index: int | None
    ) -> None:
        """Add a candidate of that section of the offer, unless the section was left out."""
        candidate.sdpMid = None if self._negotiation is None else self._negotiation.resolve_mid(mid, index)
        candidate.sdpMLineIndex = None
        if candidate.sdpMid is not None:
            await self._remote_candidates.add([candidate])

    async def close(self) -> None:
        """Close the connection. It may be called twice."""
        self._remote_candidates.close()
        self.connected.set()  # releases tasks that wait for it
        if self._answering is not None:
            await asyncio.gather(self._answering, return_exceptions=True)
        for task in self._tasks:
            task.cancel()
        if self._output is not None:
            self._output.stop()
        with contextlib.suppress(Exception):  # half-open connections fail to close, but end nevertheless
            await self._connection.close()

    async def _on_connection_state(self) -> None:
        state = self._connection.connectionState
        if state == "connected":
            self.connected.set()
        elif state in {"failed", "closed"}:
            await self._on_gone("peer_closed" if state == "closed" else "peer_lost")

    def _on_track(self, track: MediaStreamTrack) -> None:
        read = self._receive_frames if track.kind == "video" else self._discard_frames
        task = asyncio.get_running_loop().create_task(read(track), name=f"{track.kind}-in")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _receive_frames(self, track: MediaStreamTrack) -> None:
        with contextlib.suppress(MediaStreamError):
            while True:
                frame = await track.recv()
                if isinstance(frame, av.VideoFrame):
                    self._session.put_frame(frame)

    async def _discard_frames(self, track: MediaStreamTrack) -> None:
        """Read and drop frames: the queue of a track that is not read grows without limit."""
        with contextlib.suppress(MediaStreamError):
            while True:
                await track.recv()
