"""Answer the offers of browsers, and of WHIP and WHEP clients such as OBS, and connect them to sessions."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any

from aiortc import RTCDataChannel

from personalive.errors import PersonaLiveError
from personalive.pipelines.base import Pipeline, Reference
from personalive.pipelines.presets import PRESET
from personalive.server.errors import ConflictError, ServiceUnavailableError
from personalive.server.sessions.session import ServerSession
from personalive.server.sessions.session_manager import SessionManager, UnknownSessionError
from personalive.server.settings import Settings
from personalive.server.state.pipeline_manager import PipelineManager
from personalive.server.state.reference_store import ReferenceStore
from personalive.server.webrtc.data_channel import LABEL, DataChannel, read_bool, read_text
from personalive.server.webrtc.ice import make_ice_servers
from personalive.server.webrtc.ice_consent import accept_late_answers
from personalive.server.webrtc.ice_gathering import IceGathering
from personalive.server.webrtc.nat import add_public_candidates
from personalive.server.webrtc.peer import Candidate, Peer
from personalive.server.webrtc.sdp_limits import check_sdp

CLIENT_LEFT_EARLY = "client_left"
"""The reason with which a session ends if its client disconnects before its offer is answered."""
_IDLE_POLL_S = 1.0
_RESTART_RETRY_S = 2
_LOADING_RETRY_S = 5
_VIEWERS_RETRY_S = 10
_MAX_CHANNELS = 4
"""Data channels of one peer that are served. A client needs one."""


class Signaling:
    """The signaling of a server: it opens sessions for offers, and ends them when their clients are gone.

    Use it on the event loop only.
    """

    def __init__(
        self,
        settings: Settings,
        pipelines: PipelineManager,
        references: ReferenceStore,
        sessions: SessionManager,
    ) -> None:
        self._settings = settings
        self._pipelines = pipelines
        self._references = references
        self._sessions = sessions
        self._peers: dict[str, Peer] = {}  # by the session's id: the peer that drives it
        self._viewers: dict[str, tuple[Peer, str]] = {}  # by their own id, with the session's
        accept_late_answers()
        self._gathering = IceGathering()
        self._tasks: set[asyncio.Task[None]] = set()
        self._fusing: dict[tuple[str, int], asyncio.Future[Reference]] = {}
        self.draining = False

    async def answer_offer(
        self, sdp: str, parameters: Mapping[str, object], *, send: bool, timeout: float | None = None
    ) -> tuple[ServerSession, str]:
        """Open a session for an offer, and answer it: return the session and the answer's SDP.

        `parameters` may hold `reference_id`, `audio` (whether the driver's sound goes out too) and run
        parameters; parameters of other pipelines of the Scope family are ignored. With `send` the animated frames
        and the sound go back on the same connection.

        If the session is not open within `timeout` seconds, since a portrait is still being prepared, preparing it
        goes on for the next offer. If all slots are taken, a session without video for two seconds ends to make
        room. If the call is cancelled, the session ends.

        Raises:
            ServiceUnavailableError: The session cannot be opened now or within `timeout`; offer again later.
            ConflictError: No pipeline or reference is there.
            NotFoundError: The reference is unknown.
            InputError: A parameter is invalid.
            BadRequestError: The SDP is invalid or cannot be used.
        """
        check_sdp(sdp)
        session = await self.open_session(parameters, timeout=timeout)
        peer = self._make_peer(session, session.end)
        self._peers[session.id] = peer
        session.on_end.append(self._on_session_end)
        try:
            peer.receive_media()
            peer.accept_channels(self._make_channel_handler(session))
            answer = await peer.answer(sdp, receive=True, send=send)
        except asyncio.CancelledError:
            await asyncio.shield(session.end(CLIENT_LEFT_EARLY))
            raise
        except ServiceUnavailableError:
            await session.end("no_ports")
            raise
        except BaseException:
            await session.end("bad_offer")
            raise
        self.watch_session(session, peer.connected)
        return session, add_public_candidates(answer, self._settings.public_ip)

    async def open_session(
        self, parameters: Mapping[str, object], *, timeout: float | None = None
    ) -> ServerSession:
        """Open a session that has no connection yet. Errors and `timeout` are those of `answer_offer`."""
        if self.draining:
            raise ServiceUnavailableError("The server is stopping.", retry_after=30)
        if self._pipelines.is_restarting:
            raise ServiceUnavailableError(
                "The pipeline is being started again.", retry_after=_RESTART_RETRY_S
            )
        self._require_pipeline()
        chosen = parameters.get("reference_id")
        reference_id = (
            self._references.require_default() if chosen is None else read_text(parameters, "reference_id")
        )
        try:
            async with asyncio.timeout(timeout):
                return await self._open_session(reference_id, parameters)
        except TimeoutError:
            raise ServiceUnavailableError(
                "The portrait is still being prepared, or the pipeline is busy: offer again.",
                retry_after=_LOADING_RETRY_S,
            ) from None

    def watch_session(self, session: ServerSession, connected: asyncio.Event) -> None:
        """End the session if `connected` is not set in time, or its client stops sending video later."""
        session.last_frame_at = time.monotonic()  # idle time counts from now on
        self._spawn(self._watch_session(session, connected))

    def _require_pipeline(self) -> None:
        if self._pipelines.pipeline is not None:
            return
        status = self._pipelines.get_status()
        if status.status == "loading":
            raise ServiceUnavailableError(
                "The pipeline is being loaded: offer again.", retry_after=_LOADING_RETRY_S
            )
        raise ConflictError(status.error or "No pipeline is loaded: POST /api/v1/pipeline/load first.")

    async def _open_session(self, reference_id: str, values: Mapping[str, object]) -> ServerSession:
        audio = "audio" in values and read_bool(values, "audio")
        await self._sessions.evict_silent_session(self._pipelines.is_ready)
        with self._sessions.reserve_slot(self._pipelines.is_ready) as pipeline:
            reference = await self._get_fused(reference_id, pipeline)
            if not self._pipelines.is_ready(pipeline):  # replaced while the reference was prepared
                raise ConflictError(
                    "Another pipeline is being loaded: wait until it is there, and offer again."
                )
            known = {PRESET, *pipeline.run_parameters.model_fields}
            parameters = {name: value for name, value in values.items() if name in known}
            session = await self._sessions.open(pipeline, reference_id, reference, parameters)
        session.audio.set_enabled(audio)
        return session

    async def _get_fused(self, reference_id: str, pipeline: Pipeline[Any, Any]) -> Reference:
        """Return the fused reference. Fusing goes on even if the caller is cancelled."""
        key = (reference_id, id(pipeline))
        if key not in self._fusing:
            self._fusing[key] = asyncio.ensure_future(self._references.get_fused(reference_id, pipeline))
            self._fusing[key].add_done_callback(lambda done: self._on_fused(key, done))
        return await asyncio.shield(self._fusing[key])

    def _on_fused(self, key: tuple[str, int], done: asyncio.Future[Reference]) -> None:
        del self._fusing[key]
        if not done.cancelled():
            done.exception()  # marks the error as retrieved; callers that wait get it

    async def answer_viewer(self, sdp: str, session: ServerSession) -> tuple[str, str]:
        """Answer the offer of a viewer, who only watches: return the viewer's id and the answer's SDP.

        Raises `BadRequestError` for an invalid SDP, and `ServiceUnavailableError` where there are `max_viewers`.
        """
        check_sdp(sdp)
        most = self._settings.max_viewers
        if len(self._viewers) >= most:
            raise ServiceUnavailableError(
                f"{most} viewers watch already, as many as --max-viewers allows. Try again later.",
                retry_after=_VIEWERS_RETRY_S,
            )
        viewer = f"{session.id}.{len(self._viewers)}.{time.monotonic_ns():x}"

        async def gone(reason: str) -> None:
            del reason
            await self.remove_viewer(viewer)

        peer = self._make_peer(session, gone)
        self._viewers[viewer] = (peer, session.id)
        try:
            answer = await peer.answer(sdp, receive=False, send=True)
        except BaseException:
            await asyncio.shield(self.remove_viewer(viewer))
            raise
        self._spawn(self._watch_viewer(viewer, peer))
        return viewer, add_public_candidates(answer, self._settings.public_ip)

    async def remove_viewer(self, viewer_id: str) -> bool:
        """Disconnect a viewer; return whether there was one."""
        found = self._viewers.pop(viewer_id, None)
        if found is not None:
            await found[0].close()
        return found is not None

    def get_peer(self, id: str) -> Peer:
        """Return the peer of the session, or of the viewer, with that id. Raises `NotFoundError` without one."""
        found = self._peers.get(id) or self._viewers.get(id, (None, ""))[0]
        if found is None:
            raise UnknownSessionError
        return found

    async def add_candidates(self, id: str, candidates: list[Candidate]) -> None:
        """Add candidates that came after the offer. Raises `NotFoundError`, `BadRequestError`."""
        peer = self.get_peer(id)
        for candidate in candidates:
            await peer.add_candidate(candidate)

    async def close(self) -> None:
        """Stop all tasks and disconnect all viewers."""
        for task in list(self._tasks):
            task.cancel()
        for viewer in list(self._viewers):
            await self.remove_viewer(viewer)

    def _make_peer(self, session: ServerSession, on_gone: Callable[[str], Awaitable[None]]) -> Peer:
        return Peer(session, make_ice_servers(self._settings, time.time()), self._gathering, on_gone)

    def _make_channel_handler(self, session: ServerSession) -> Callable[[RTCDataChannel], None]:
        """Return the function that serves the data channels of a session's peer."""
        served = 0

        def serve(channel: RTCDataChannel) -> None:
            nonlocal served
            if channel.label == LABEL and served < _MAX_CHANNELS:
                served += 1
                DataChannel(channel, session, self.switch_reference)

        return serve

    async def switch_reference(self, session: ServerSession, reference_id: str) -> None:
        """Animate another reference in a session. Raises `NotFoundError` for an unknown one."""
        reference = await self._references.get_fused(reference_id, session.worker.pipeline)
        await session.switch_reference(reference_id, reference)

    async def _watch_session(self, session: ServerSession, connected: asyncio.Event) -> None:
        limit = self._settings.connect_timeout_s
        try:
            await asyncio.wait_for(connected.wait(), limit)
        except TimeoutError:
            await session.end("connect_timeout", f"The connection was not established within {limit:g} s.")
            return
        session.last_frame_at = time.monotonic()
        limit = self._settings.idle_timeout_s
        while not session.ended:
            await asyncio.sleep(_IDLE_POLL_S)
            if not session.paused and time.monotonic() - session.last_frame_at > limit:
                await session.end("idle", f"No video arrived for {limit:g} s.")

    async def _watch_viewer(self, viewer: str, peer: Peer) -> None:
        """Disconnect a viewer who never connects; the connection itself notices one who is lost later."""
        try:
            await asyncio.wait_for(peer.connected.wait(), self._settings.connect_timeout_s)
        except TimeoutError:
            await self.remove_viewer(viewer)

    async def _on_session_end(self, session: ServerSession) -> None:
        viewers = [viewer for viewer, (_, watched) in self._viewers.items() if watched == session.id]
        for viewer in viewers:
            await self.remove_viewer(viewer)
        peer = self._peers.pop(session.id, None)
        if peer is not None:
            # The last messages must still be sent, and closing a connection may take seconds.
            self._spawn(self._close_later(peer))

    async def _close_later(self, peer: Peer) -> None:
        await asyncio.sleep(0.2)
        with contextlib.suppress(PersonaLiveError):
            await peer.close()

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
