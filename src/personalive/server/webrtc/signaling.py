"""Who connects to which session: offers of browsers, and of WHIP and WHEP clients such as OBS."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any

from aiortc import RTCDataChannel

from personalive.errors import PersonaLiveError
from personalive.pipelines.base import Pipeline, Reference
from personalive.server.errors import BusyError, ConflictError
from personalive.server.sessions.session import Stream
from personalive.server.sessions.session_manager import Streams, UnknownSessionError
from personalive.server.settings import Settings
from personalive.server.state.pipeline_manager import PipelineHost
from personalive.server.state.reference_store import References
from personalive.server.webrtc.data_channel import LABEL, Channel, text_of
from personalive.server.webrtc.ice import ice_servers
from personalive.server.webrtc.ice_consent import accept_late_answers
from personalive.server.webrtc.ice_gathering import Gathering
from personalive.server.webrtc.nat import with_public_address
from personalive.server.webrtc.peer import Candidate, Peer
from personalive.server.webrtc.sdp_limits import check_sdp

CLIENT_LEFT = "client_left"
"""The reason of sessions whose client was gone before its offer was answered."""
_IDLE_LOOK_S = 1.0
_RESTART_RETRY_S = 2
_LOADING_RETRY_S = 5
_VIEWERS_RETRY_S = 10
_MOST_CHANNELS = 4
"""Data channels of one peer that are served: a client needs one."""


class Calls:
    """Opens sessions for those who offer, and ends them when they are gone. Use it on the event loop only."""

    def __init__(
        self, settings: Settings, host: PipelineHost, references: References, streams: Streams
    ) -> None:
        self._settings = settings
        self._host = host
        self._references = references
        self._streams = streams
        self._peers: dict[str, Peer] = {}  # by the session's id: the peer that drives it
        self._viewers: dict[str, tuple[Peer, str]] = {}  # by their own id, with the session's
        accept_late_answers()
        self._gathering = Gathering()
        self._tasks: set[asyncio.Task[None]] = set()
        self._preparing: dict[tuple[str, int], asyncio.Future[Reference]] = {}
        self.draining = False

    async def offer(
        self, sdp: str, given: Mapping[str, object], *, send: bool, within: float | None = None
    ) -> tuple[Stream, str]:
        """Open a session for this offer, and answer it.

        `given` may hold `reference_id` and run parameters; what other pipelines of the Scope family know is
        ignored. With `send` the animated frames go back on the same connection.

        Where the session is not there `within` so many seconds, as a portrait is still being prepared, that is a
        `BusyError`; what was begun goes on, and is done for the next offer. Where all slots are taken, a session
        without video for two seconds ends for this one. Where this is cancelled, the session ends.

        Raises `BusyError`, `ConflictError` where no pipeline or reference is there, `NotFoundError` for an
        unknown reference, `InputError` for a bad parameter, `BadRequestError` for a bad SDP.
        """
        check_sdp(sdp)
        if self.draining:
            raise BusyError("The server is stopping.", retry_after=30)
        if self._host.restarting:
            raise BusyError("The pipeline is being started again.", retry_after=_RESTART_RETRY_S)
        self._require_pipeline()
        chosen = given.get("reference_id")
        reference_id = (
            self._references.require_default() if chosen is None else text_of(given, "reference_id")
        )
        try:
            async with asyncio.timeout(within):
                stream = await self._open(reference_id, given)
        except TimeoutError:
            raise BusyError(
                "The portrait is still being prepared, or the pipeline is busy: offer again.",
                retry_after=_LOADING_RETRY_S,
            ) from None
        peer = self._peer(stream, stream.end)
        self._peers[stream.id] = peer
        stream.on_end.append(self._hang_up)
        try:
            peer.take_media()
            peer.take_channel(self._server_of(stream))
            answer = await peer.answer(sdp, take=True, send=send)
        except asyncio.CancelledError:
            await asyncio.shield(stream.end(CLIENT_LEFT))
            raise
        except BusyError:
            await stream.end("no_ports")
            raise
        except BaseException:
            await stream.end("bad_offer")
            raise
        stream.last_frame_at = time.monotonic()  # from now on its silence is the client's
        self._keep(self._watch(stream, peer))
        return stream, with_public_address(answer, self._settings.public_ip)

    def _require_pipeline(self) -> None:
        if self._host.pipeline is not None:
            return
        status = self._host.status()
        if status.status == "loading":
            raise BusyError("The pipeline is being loaded: offer again.", retry_after=_LOADING_RETRY_S)
        raise ConflictError(status.error or "No pipeline is loaded: POST /api/v1/pipeline/load first.")

    async def _open(self, reference_id: str, given: Mapping[str, object]) -> Stream:
        await self._streams.make_room(self._host.has)
        with self._streams.place(self._host.has) as pipeline:
            reference = await self._prepared(reference_id, pipeline)
            if not self._host.has(pipeline):  # replaced while the reference was prepared
                raise ConflictError(
                    "Another pipeline is being loaded: wait until it is there, and offer again."
                )
            known = pipeline.run_parameters.model_fields
            parameters = {name: value for name, value in given.items() if name in known}
            return await self._streams.open(pipeline, reference_id, reference, parameters)

    async def _prepared(self, reference_id: str, pipeline: Pipeline[Any, Any]) -> Reference:
        """The fused reference. Fusing goes on when nobody waits for it any more."""
        key = (reference_id, id(pipeline))
        if key not in self._preparing:
            self._preparing[key] = asyncio.ensure_future(self._references.fused(reference_id, pipeline))
            self._preparing[key].add_done_callback(lambda done: self._forget_preparing(key, done))
        return await asyncio.shield(self._preparing[key])

    def _forget_preparing(self, key: tuple[str, int], done: asyncio.Future[Reference]) -> None:
        del self._preparing[key]
        if not done.cancelled():
            done.exception()  # whoever still waited has heard of it

    async def view(self, sdp: str, stream: Stream) -> tuple[str, str]:
        """Answer the offer of somebody who only watches: the viewer's id and the answer.

        Raises `BadRequestError` for a bad SDP, and `BusyError` where there are as many viewers as may be.
        """
        check_sdp(sdp)
        most = self._settings.max_viewers
        if len(self._viewers) >= most:
            raise BusyError(
                f"{most} viewers watch already, as many as --max-viewers allows. Try again later.",
                retry_after=_VIEWERS_RETRY_S,
            )
        viewer = f"{stream.id}.{len(self._viewers)}.{time.monotonic_ns():x}"

        async def gone(reason: str) -> None:
            del reason
            await self.leave(viewer)

        peer = self._peer(stream, gone)
        self._viewers[viewer] = (peer, stream.id)
        try:
            answer = await peer.answer(sdp, take=False, send=True)
        except BaseException:
            await asyncio.shield(self.leave(viewer))
            raise
        self._keep(self._watch_viewer(viewer, peer))
        return viewer, with_public_address(answer, self._settings.public_ip)

    async def leave(self, viewer: str) -> bool:
        """A viewer has left. Whether there was one."""
        found = self._viewers.pop(viewer, None)
        if found is not None:
            await found[0].close()
        return found is not None

    def peer(self, id: str) -> Peer:
        """The peer that drives the session, or the viewer, of that id. Raises `NotFoundError`."""
        found = self._peers.get(id) or self._viewers.get(id, (None, ""))[0]
        if found is None:
            raise UnknownSessionError
        return found

    async def add_candidates(self, id: str, candidates: list[Candidate]) -> None:
        """Candidates that came after the offer. Raises `NotFoundError`, `BadRequestError`."""
        peer = self.peer(id)
        for candidate in candidates:
            await peer.add_candidate(candidate)

    async def close(self) -> None:
        """Let everybody go."""
        for task in list(self._tasks):
            task.cancel()
        for viewer in list(self._viewers):
            await self.leave(viewer)

    def _peer(self, stream: Stream, on_gone: Callable[[str], Awaitable[None]]) -> Peer:
        return Peer(stream, ice_servers(self._settings, time.time()), self._gathering, on_gone)

    def _server_of(self, stream: Stream) -> Callable[[RTCDataChannel], None]:
        """What serves the data channels of a session's peer."""
        served = 0

        def serve(channel: RTCDataChannel) -> None:
            nonlocal served
            if channel.label == LABEL and served < _MOST_CHANNELS:
                served += 1
                Channel(channel, stream, self._switch)

        return serve

    async def _switch(self, stream: Stream, reference_id: str) -> None:
        reference = await self._references.fused(reference_id, stream.worker.pipeline)
        await stream.switch(reference_id, reference)

    async def _watch(self, stream: Stream, peer: Peer) -> None:
        """End the session if its client never connects, or sends nothing any more."""
        limit = self._settings.connect_timeout_s
        try:
            await asyncio.wait_for(peer.connected.wait(), limit)
        except TimeoutError:
            await stream.end("connect_timeout", f"No connection came about within {limit:g} s.")
            return
        stream.last_frame_at = time.monotonic()
        limit = self._settings.idle_timeout_s
        while not stream.ended:
            await asyncio.sleep(_IDLE_LOOK_S)
            if not stream.paused and time.monotonic() - stream.last_frame_at > limit:
                await stream.end("idle", f"No video came for {limit:g} s.")

    async def _watch_viewer(self, viewer: str, peer: Peer) -> None:
        """Let a viewer go who never connects; one who is lost later is noticed by the connection."""
        try:
            await asyncio.wait_for(peer.connected.wait(), self._settings.connect_timeout_s)
        except TimeoutError:
            await self.leave(viewer)

    async def _hang_up(self, stream: Stream) -> None:
        viewers = [viewer for viewer, (_, session) in self._viewers.items() if session == stream.id]
        for viewer in viewers:
            await self.leave(viewer)
        peer = self._peers.pop(stream.id, None)
        if peer is not None:
            # What was said last must still leave, and closing a connection may take seconds.
            self._keep(self._close_soon(peer))

    async def _close_soon(self, peer: Peer) -> None:
        await asyncio.sleep(0.2)
        with contextlib.suppress(PersonaLiveError):
            await peer.close()

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
