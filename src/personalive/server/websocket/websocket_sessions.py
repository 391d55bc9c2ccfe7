"""Sessions that are opened for a WebSocket: each waits for its WebSocket, which shows the token that opened it."""

from __future__ import annotations

import asyncio
import hmac
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from fastapi import WebSocket

from personalive.server.errors import BadRequestError
from personalive.server.sessions.session import ServerSession
from personalive.server.webrtc.signaling import Signaling
from personalive.server.websocket.audio_codecs import check_audio_codecs
from personalive.server.websocket.connection import WebSocketConnection
from personalive.server.websocket.video_codecs import VideoCodec, check_codecs

SUBPROTOCOL = "personalive.v1"
TOKEN_PREFIX = "token."
"""The prefix of a second subprotocol, the token: browsers cannot set headers, and addresses are logged."""


@dataclass(frozen=True, slots=True)
class SessionOffer:
    """A session that waits for its WebSocket, or has it."""

    session: ServerSession
    driving_codec: VideoCodec
    animated_codec: VideoCodec
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    connected: asyncio.Event = field(default_factory=asyncio.Event)


class WebSocketSessions:
    """The sessions of a server that have a WebSocket, or wait for one. Use it on the event loop only."""

    def __init__(self, signaling: Signaling) -> None:
        self._signaling = signaling
        self._opened: dict[str, SessionOffer] = {}
        self.codecs = check_codecs()
        self.audio_codecs = check_audio_codecs()

    async def open(
        self, parameters: Mapping[str, object], driving_codec: VideoCodec, animated_codec: VideoCodec
    ) -> SessionOffer:
        """Open a session, which ends if its WebSocket does not come in time.

        `parameters` and errors are those of `Signaling.answer_offer`; an unavailable codec is a `BadRequestError`.
        """
        for codec in (driving_codec, animated_codec):
            if codec not in self.codecs:
                raise BadRequestError(f"{codec} is not available here: offer {' or '.join(self.codecs)}.")
        session = await self._signaling.open_session(parameters)
        opened = self._opened[session.id] = SessionOffer(session, driving_codec, animated_codec)
        session.on_end.append(self._on_session_end)
        self._signaling.watch_session(session, opened.connected)
        return opened

    async def serve(self, websocket: WebSocket, session_id: str) -> bool:
        """Serve a session's WebSocket until it ends; return False, at once, if it shows no valid token.

        A token is valid once.
        """
        opened = self._opened.get(session_id)
        if opened is None or opened.connected.is_set() or not _has_token(websocket, opened.token):
            return False
        opened.connected.set()
        await websocket.accept(SUBPROTOCOL)
        await WebSocketConnection(
            websocket,
            opened.session,
            self._signaling.switch_reference,
            driving_codec=opened.driving_codec,
            animated_codec=opened.animated_codec,
            carries_sound=bool(self.audio_codecs),
        ).run()
        return True

    async def _on_session_end(self, session: ServerSession) -> None:
        opened = self._opened.pop(session.id, None)
        if opened is not None:
            opened.connected.set()  # releases the task that waits for it


def _has_token(websocket: WebSocket, token: str) -> bool:
    offered: Iterable[str] = websocket.scope["subprotocols"]
    shown = [name.removeprefix(TOKEN_PREFIX) for name in offered if name.startswith(TOKEN_PREFIX)]
    return SUBPROTOCOL in offered and any(hmac.compare_digest(one.encode(), token.encode()) for one in shown)
