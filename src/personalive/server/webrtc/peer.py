"""A WebRTC connection to a client: the media that it receives and sends."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

import av
from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCDataChannel,
    RTCIceCandidate,
    RTCIceServer,
    RTCPeerConnection,
    RTCRtpTransceiver,
    RTCSessionDescription,
)
from aiortc.mediastreams import MediaStreamError
from av.frame import Frame
from pydantic import BaseModel

from personalive.server.errors import BadRequestError, HttpError, ServiceUnavailableError
from personalive.server.sessions.audio_delay import SAMPLE_RATE
from personalive.server.sessions.session import ServerSession
from personalive.server.telemetry import logs
from personalive.server.webrtc import decoders
from personalive.server.webrtc.audio_jitter_buffer import use_audio_jitter_buffer
from personalive.server.webrtc.dtls import log_failed_handshakes
from personalive.server.webrtc.ice_candidates import RemoteCandidates, parse_candidate, split_candidates
from personalive.server.webrtc.ice_gathering import IceGathering, has_candidates
from personalive.server.webrtc.jitter_buffer import use_low_latency_jitter_buffer
from personalive.server.webrtc.negotiation import Negotiation
from personalive.server.webrtc.output_tracks import OPUS_DELAY_S, OutputAudioTrack, OutputTrack
from personalive.server.webrtc.sender_reports import ReceivedClock, align_reports
from personalive.server.webrtc.ssrc_filter import accept_one_ssrc

_PORTS_RETRY_S = 10


class Candidate(BaseModel):
    """A remote ICE candidate in the browsers' form. An empty one says that there are no more."""

    candidate: str = ""
    sdpMid: str | None = None  # noqa: N815 - the browsers' name
    sdpMLineIndex: int | None = None  # noqa: N815


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
        self._outputs: list[OutputTrack | OutputAudioTrack] = []
        self._received_clocks: dict[int, ReceivedClock] = {}  # by the identity of their track
        self.connected = asyncio.Event()
        self.etag = f'"{secrets.token_urlsafe(9)}"'
        """The HTTP entity tag of the ICE session."""
        self._connection.on("connectionstatechange", self._on_connection_state)

    def receive_media(self) -> None:
        """Pass the video and the sound that arrive to the session, which drops sound unless it is switched on."""
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
            self._prepare_receivers()
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
            logs.event("offer_rejected", session=self._session.id, error=f"{type(error).__name__}: {error}")
            raise BadRequestError("The offer's SDP cannot be used: it is malformed.") from error
        if negotiation.notes:
            logs.event(
                "offer_partially_accepted", session=self._session.id, left_out="; ".join(negotiation.notes)
            )
        return negotiation.build_answer(self._connection.localDescription.sdp)

    def _require_ports(self) -> None:
        if not has_candidates(self._connection):
            raise ServiceUnavailableError(
                "No UDP port is left for media: try again when a session or a viewer has ended, or serve with "
                "more --udp-ports.",
                retry_after=_PORTS_RETRY_S,
            )

    def _prepare_receivers(self) -> None:
        for receiver in self._connection.getReceivers():
            track = receiver.track
            if track is None:  # the client only receives
                continue
            self._received_clocks[id(track)] = ReceivedClock(receiver)
            if track.kind == "audio":
                use_audio_jitter_buffer(receiver)
                accept_one_ssrc(receiver)  # the decoder cannot tell streams apart

    def _attach_tracks(self, negotiation: Negotiation) -> None:
        """Send on the offer's sections for that, and receive one layer where the video has several."""
        tracks: dict[str, type[OutputTrack | OutputAudioTrack]] = {}
        if negotiation.sent_mid is not None:
            tracks[negotiation.sent_mid] = OutputTrack
        if negotiation.sent_audio_mid is not None:
            tracks[negotiation.sent_audio_mid] = OutputAudioTrack
        stream_id = secrets.token_urlsafe(12)
        for transceiver in self._connection.getTransceivers():
            if transceiver.mid in tracks:
                self._send_track(transceiver, tracks[transceiver.mid](self._session), stream_id)
            if transceiver.mid == negotiation.received_mid and negotiation.simulcast_layers > 1:
                accept_one_ssrc(transceiver.receiver)
                logs.event(
                    "simulcast_layer_selected",
                    session=self._session.id,
                    offered=negotiation.simulcast_layers,
                    remedy="in OBS, Settings > Stream: switch Simulcast off, to send no more than is used",
                )

    def _send_track(
        self, transceiver: RTCRtpTransceiver, track: OutputTrack | OutputAudioTrack, stream_id: str
    ) -> None:
        """Send a track. Receivers play tracks in time with each other that are of one stream."""
        self._outputs.append(track)
        sender: Any = transceiver.sender
        sender.replaceTrack(track)
        sender._stream_id = stream_id
        align_reports(sender, track.get_time)
        transceiver.direction = "sendrecv"

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
        for output in self._outputs:
            output.stop()
        with contextlib.suppress(Exception):  # half-open connections fail to close, but end nevertheless
            await self._connection.close()

    async def _on_connection_state(self) -> None:
        state = self._connection.connectionState
        if state == "connected":
            self.connected.set()
        elif state in {"failed", "closed"}:
            await self._on_gone("peer_closed" if state == "closed" else "peer_lost")

    def _on_track(self, track: MediaStreamTrack) -> None:
        task = asyncio.get_running_loop().create_task(self._receive(track), name=f"{track.kind}-in")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _receive(self, track: MediaStreamTrack) -> None:
        """Pass a track's frames to the session. They must be read: the queue of a track grows without limit."""
        with contextlib.suppress(MediaStreamError):
            while True:
                frame = await track.recv()
                if isinstance(frame, av.VideoFrame):
                    self._session.put_frame(frame, self._get_source_time(track, frame))
                elif isinstance(frame, av.AudioFrame) and self._session.audio.enabled:
                    self._session.audio.put(frame, self._get_source_time(track, frame))

    def _get_source_time(self, track: MediaStreamTrack, frame: Frame) -> float | None:
        clock = self._received_clocks.get(id(track))
        source_time = None if clock is None else clock.get_source_time(frame)
        if source_time is not None and isinstance(frame, av.AudioFrame) and frame.sample_rate == SAMPLE_RATE:
            source_time -= OPUS_DELAY_S  # the other formats have other rates
        return source_time
