"""Sessions: opened where a slot is free, and from then on reached where they are."""

from __future__ import annotations

import time
from http import HTTPStatus
from urllib.parse import urlencode

from fastapi import APIRouter, Request, Response

from personalive.server.cluster import aggregate
from personalive.server.cluster.dependencies import AskedDep, Parts, PartsDep, passed_on
from personalive.server.cluster.replica_client import Answered, Asked, session_in
from personalive.server.disconnect import while_there
from personalive.server.errors import ConflictError, NotFoundError
from personalive.server.routes.sessions import Sessions
from personalive.server.routes.webrtc import IceServers
from personalive.server.webrtc.ice import ice_servers

router = APIRouter()

_SESSIONS = Asked("GET", "/api/v1/sessions")


@router.get("/api/v1/webrtc/ice-servers")
async def servers(parts: PartsDep) -> IceServers:
    """STUN and TURN servers, as the settings have them."""
    return IceServers(iceServers=ice_servers(parts.settings, time.time()))


@router.post("/api/v1/webrtc/offer")
@router.post("/whip", operation_id="push")
async def offer(request: Request, asked: AskedDep, parts: PartsDep) -> Response:
    """Open a session on a replica that has a slot."""

    async def close_again(answer: Answered) -> None:
        session = session_in(answer)
        if session is not None:
            await parts.fleet.ask_owner(session, Asked("DELETE", f"/api/v1/webrtc/offer/{session}"))

    default = await parts.ledger.default.remote()
    answer = await while_there(request, parts.slots.open(asked, default), undo=close_again)
    if answer.status == HTTPStatus.CONFLICT and default is None:
        await parts.require_reference()
    return passed_on(answer)


@router.delete("/api/v1/webrtc/offer/{session_id}")
async def close(session_id: str, asked: AskedDep, parts: PartsDep) -> Response:
    """Close a session; one that is gone already is no error."""
    try:
        return passed_on(await parts.fleet.ask_owner(session_id, asked))
    except NotFoundError:
        return Response(status_code=204)


@router.get("/api/v1/sessions")
async def live(parts: PartsDep) -> Sessions:
    """Every live session of every replica."""
    return aggregate.sessions(await parts.fleet.ask_all(_SESSIONS))


@router.post("/whep")
async def pull(asked: AskedDep, parts: PartsDep, session: str | None = None) -> Response:
    """Watch a session, by default the newest of all."""
    if session is None:
        session = await _newest(parts)
        asked = Asked(asked.method, asked.path, urlencode({"session": session}), asked.headers, asked.body)
    return passed_on(await parts.fleet.ask_owner(session, asked))


@router.patch("/api/v1/webrtc/offer/{session_id}")
@router.get("/api/v1/sessions/{session_id}")
@router.get("/api/v1/sessions/{session_id}/picture")
@router.post("/api/v1/sessions/{session_id}/recording")
@router.delete("/api/v1/sessions/{session_id}/recording")
@router.options("/whip/{session_id}")
@router.options("/whep/{session_id}")
@router.patch("/whip/{session_id}")
@router.delete("/whip/{session_id}")
@router.patch("/whep/{session_id}")
@router.delete("/whep/{session_id}")
async def about(session_id: str, asked: AskedDep, parts: PartsDep) -> Response:
    """Whatever else is said about a session goes to the replica that has it."""
    return passed_on(await parts.fleet.ask_owner(session_id, asked))


async def _newest(parts: Parts) -> str:
    found = aggregate.sessions(await parts.fleet.ask_all(_SESSIONS)).sessions
    if not found:
        raise ConflictError("No session streams: push a camera to /whip first.")
    return found[-1].id
