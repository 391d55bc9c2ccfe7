"""The session of a live run: opened, and opened again when it or its pipeline breaks down."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence

import av

from personalive.errors import PersonaLiveError
from personalive.live.live_display import LiveDisplay
from personalive.live.live_sound import LiveSound
from personalive.live.pipeline_host import PipelineHost
from personalive.live.portraits import LivePortrait
from personalive.server.sessions.playout_buffer import FrameCallback
from personalive.server.sessions.session import Message, ServerSession

_REOPEN_DELAY_S = 1.0
_MAX_SHORT_SESSIONS = 3
_SHORT_SESSION_S = 10.0
"""Seconds before which a session's end counts as a failure. After `_MAX_SHORT_SESSIONS` in a row the run ends."""


class SessionKeeper:
    """Keeps a session open on one of the portraits. Use it on the event loop only."""

    def __init__(
        self,
        host: PipelineHost,
        portraits: Sequence[LivePortrait],
        display: LiveDisplay,
        on_frame: FrameCallback,
        on_loading: Callable[[], None],
        sound: LiveSound | None = None,
    ) -> None:
        """Keep sessions of `host`; `on_frame` gets what they send, and `sound` their sound, None without sound."""
        self._host = host
        self._portraits = portraits
        self._display = display
        self._on_frame = on_frame
        self._on_loading = on_loading
        self._sound = sound
        self._session: ServerSession | None = None
        self._problem: str | None = None
        self.shown = 0
        """The number of the portrait that is shown."""
        self.paused = False

    async def keep(self, values: Mapping[str, object]) -> None:
        """Open a session with these run parameters, and another one when it ends.

        Raises `PersonaLiveError` where that does not help.
        """
        short = 0
        while True:
            await self._host.wait_until_ready(self._on_loading)
            opened_at = time.monotonic()
            self._problem = None
            try:
                await self._run_session(values)
            except PersonaLiveError as error:
                self._problem = str(error)
            problem = self._problem or "The session has ended."
            short = short + 1 if time.monotonic() - opened_at < _SHORT_SESSION_S else 0
            if short >= _MAX_SHORT_SESSIONS:
                raise PersonaLiveError(problem)
            self._display.show_notice(problem)
            await asyncio.sleep(_REOPEN_DELAY_S)

    async def _run_session(self, values: Mapping[str, object]) -> None:
        ended = asyncio.Event()

        async def on_end(session: ServerSession) -> None:
            del session
            self._session = None
            ended.set()

        session = await self._host.open_session(self._portraits[self.shown], values)
        session.makes_planes = False  # those of the canvas are sent
        session.on_end.append(on_end)
        session.add_message_listener(self._on_message)
        session.add_frame_listener(self._on_frame)
        if self._sound is not None:
            session.audio.set_enabled(True)
            session.audio.add_listener(self._sound.put)
        if self.paused:
            await session.set_paused(True)
        self._session = session
        self.update_lead()
        await ended.wait()

    def _on_message(self, message: Message) -> None:
        if message["type"] == "stream_stopped":
            self._problem = message.get("error_message")
        elif message["type"] == "error":
            self._display.show_notice(str(message["message"]))

    def put_frame(
        self, frame: av.VideoFrame, source_time: float | None = None, *, arrived_at: float | None = None
    ) -> None:
        """Take a driving frame, captured at `source_time`; it is dropped while there is no session."""
        if self._session is not None:
            self._session.put_frame(frame, source_time, arrived_at=arrived_at)

    def put_sound(self, frame: av.AudioFrame, source_time: float | None = None) -> None:
        """Take sound, captured at `source_time`; it is dropped while there is no session."""
        if self._session is not None:
            self._session.audio.put(frame, source_time)

    @property
    def sound_offset(self) -> float:
        """By how many seconds sound is later than the picture, since it arrives or is needed so much later."""
        return 0.0 if self._session is None else self._session.audio.offset

    def update_lead(self) -> None:
        """Let the session send sound as early as what plays it needs it."""
        if self._session is not None and self._sound is not None:
            self._session.audio.lead = self._sound.lead

    async def toggle_pause(self) -> None:
        """Pause, or go on."""
        self.paused = not self.paused
        if self._session is not None:
            await self._session.set_paused(self.paused)

    async def reset(self) -> None:
        """Forget the driver: the next frames are treated as the first."""
        if self._session is not None:
            await self._session.reset()

    async def show_next(self) -> None:
        """Show the next portrait. Raises `PersonaLiveError` where the pipeline cannot use it."""
        number = (self.shown + 1) % len(self._portraits)
        portrait, session = self._portraits[number], self._session
        if session is not None:
            reference = await self._host.fuse(portrait)
            await session.switch_reference(str(portrait.path), reference)
        self.shown = number
