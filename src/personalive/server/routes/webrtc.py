"""WebRTC: the requests with which a browser opens and closes a session."""

from __future__ import annotations

import time
from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from personalive.server.dependencies import ServerDep
from personalive.server.disconnect import run_until_disconnect
from personalive.server.errors import error_responses
from personalive.server.webrtc.ice import make_ice_servers
from personalive.server.webrtc.peer import Candidate
from personalive.server.webrtc.sdp_limits import MAX_CANDIDATES, MAX_SDP_CHARACTERS
from personalive.server.webrtc.signaling import CLIENT_LEFT_EARLY

router = APIRouter(prefix="/api/v1/webrtc", tags=["webrtc"])


class IceServers(BaseModel):
    """The ICE servers for a browser's `RTCPeerConnection` configuration."""

    iceServers: list[dict[str, Any]]  # noqa: N815 - the browsers' name


class Offer(BaseModel):
    """A client's offer."""

    model_config = ConfigDict(extra="forbid")

    sdp: str = Field(max_length=MAX_SDP_CHARACTERS)
    type: Literal["offer"]
    initialParameters: dict[str, Any] | None = Field(  # noqa: N815 - fixed by the clients that exist
        None,
        description="`reference_id`, `audio` (true sends the driver's sound back too), run parameters, and "
        "`preset`, which stands for those that it sets. Parameters of other pipelines are ignored.",
    )


class Answer(BaseModel):
    """The server's answer, and the new session's id."""

    sdp: str
    type: Literal["answer"] = "answer"
    sessionId: str  # noqa: N815


class Candidates(BaseModel):
    """Candidates found after the offer was sent."""

    model_config = ConfigDict(extra="forbid")

    candidates: list[Candidate] = Field(max_length=MAX_CANDIDATES)


@router.get("/ice-servers")
async def get_ice_servers(server: ServerDep) -> IceServers:
    """Return the STUN and TURN servers. TURN credentials are made for this request and expire."""
    return IceServers(iceServers=make_ice_servers(server.settings, time.time()))


@router.post("/offer", responses=error_responses(400, 404, 409, 503))
async def offer(offered: Offer, server: ServerDep, request: Request) -> Answer:
    """Open a session: video and sound in, animated video and its sound back, a data channel named `parameters`."""
    session, sdp = await run_until_disconnect(
        request,
        server.signaling.answer_offer(offered.sdp, offered.initialParameters or {}, send=True),
        on_disconnect=lambda opened: opened[0].end(CLIENT_LEFT_EARLY),
    )
    return Answer(sdp=sdp, sessionId=session.id)


@router.patch("/offer/{session_id}", status_code=204, responses=error_responses(400, 404))
async def trickle(session_id: str, found: Candidates, server: ServerDep) -> Response:
    """Add ICE candidates. An empty candidate says that there are no more."""
    await server.signaling.add_candidates(session_id, found.candidates)
    return Response(status_code=204)


@router.delete("/offer/{session_id}", status_code=204)
async def close_session(session_id: str, server: ServerDep) -> Response:
    """Close a session. It is no error if the session has ended already or never existed."""
    await server.sessions.close(session_id)
    return Response(status_code=204)
