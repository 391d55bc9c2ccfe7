"""WebSocket: sessions of clients that UDP does not reach; `docs/reference/websocket.md` describes the messages."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response, WebSocket
from pydantic import BaseModel, ConfigDict, Field

from personalive.server.dependencies import ServerDep
from personalive.server.disconnect import run_until_disconnect
from personalive.server.errors import error_responses, make_error_response
from personalive.server.server import Server
from personalive.server.webrtc.signaling import CLIENT_LEFT_EARLY
from personalive.server.websocket.audio_codecs import AudioCodec
from personalive.server.websocket.video_codecs import MAX_PIXELS, VideoCodec
from personalive.server.websocket.websocket_sessions import SUBPROTOCOL
from personalive.server.websocket_protocol import MAX_MESSAGE_BYTES

router = APIRouter(prefix="/api/v1/websocket", tags=["websocket"])


class WebSocketInfo(BaseModel):
    """What a WebSocket of this server may carry."""

    protocol: str = Field(SUBPROTOCOL, description="The subprotocol to name.")
    codecs: list[VideoCodec] = Field(description="Codecs of both directions, the preferred one first.")
    audioCodecs: list[AudioCodec] = Field(  # noqa: N815
        description="Codecs of sound, for both directions; none where the server cannot carry sound."
    )
    maxMessageBytes: int = MAX_MESSAGE_BYTES  # noqa: N815 - as in offers
    maxPixels: int = Field(MAX_PIXELS, description="The most pixels of a driving frame.")  # noqa: N815


class WebSocketOffer(BaseModel):
    """A client's codecs, and what `initialParameters` of a WebRTC offer are."""

    model_config = ConfigDict(extra="forbid")

    drivingCodec: VideoCodec = Field(description="The codec of the frames that the client sends.")  # noqa: N815
    animatedCodec: VideoCodec = Field(description="The codec of the frames that it gets.")  # noqa: N815
    initialParameters: dict[str, Any] | None = Field(  # noqa: N815
        None,
        description="`reference_id`, `audio` (true sends the driver's sound back too) and run parameters. "
        "Parameters of other pipelines are ignored.",
    )


class WebSocketAnswer(BaseModel):
    """The new session: connect to `/api/v1/websocket/{sessionId}` with the token, which is valid once."""

    sessionId: str  # noqa: N815
    token: str


@router.get("")
async def websocket_info(server: ServerDep) -> WebSocketInfo:
    """Return what a WebSocket of this server may carry."""
    found = server.websockets
    return WebSocketInfo.model_validate({"codecs": found.codecs, "audioCodecs": found.audio_codecs})


@router.post("/offer", responses=error_responses(400, 404, 409, 503))
async def websocket_offer(offered: WebSocketOffer, server: ServerDep, request: Request) -> WebSocketAnswer:
    """Open a session that waits for its WebSocket."""
    opened = await run_until_disconnect(
        request,
        server.websockets.open(offered.initialParameters or {}, offered.drivingCodec, offered.animatedCodec),
        on_disconnect=lambda left: left.session.end(CLIENT_LEFT_EARLY),
    )
    return WebSocketAnswer(sessionId=opened.session.id, token=opened.token)


@router.delete("/offer/{session_id}", status_code=204)
async def close_websocket_session(session_id: str, server: ServerDep) -> Response:
    """Close a session, as closing its WebSocket does. It is no error if the session has ended already."""
    await server.sessions.close(session_id)
    return Response(status_code=204)


@router.websocket("/{session_id}")
async def connect(websocket: WebSocket, session_id: str) -> None:
    """Carry the session's video and messages."""
    server: Server = websocket.app.state.server
    if not await server.websockets.serve(websocket, session_id):
        detail = "There is no such session, or its token was used or is wrong: POST an offer first."
        await websocket.send_denial_response(make_error_response(403, detail))
