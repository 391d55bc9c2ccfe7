"""Sessions: opened on a replica with a free slot; later requests go to that replica."""

from __future__ import annotations

import time
from http import HTTPStatus
from urllib.parse import urlencode

from fastapi import APIRouter, Request, Response

from personalive.server.cluster import aggregate
from personalive.server.cluster.dependencies import (
    DependenciesDep,
    IngressDependencies,
    ProxyRequestDep,
    make_response,
)
from personalive.server.cluster.replica_client import ProxyRequest, ProxyResponse, get_session_id
from personalive.server.disconnect import run_until_disconnect
from personalive.server.errors import ConflictError, NotFoundError
from personalive.server.routes.sessions import SessionList
from personalive.server.routes.webrtc import IceServers
from personalive.server.webrtc.ice import make_ice_servers

router = APIRouter()

_LIST_SESSIONS = ProxyRequest("GET", "/api/v1/sessions")


@router.get("/api/v1/webrtc/ice-servers")
async def get_ice_servers(deps: DependenciesDep) -> IceServers:
    """Return the STUN and TURN servers of the settings."""
    return IceServers(iceServers=make_ice_servers(deps.settings, time.time()))


@router.post("/api/v1/webrtc/offer")
@router.post("/api/v1/websocket/offer", operation_id="websocket_offer")
@router.post("/whip", operation_id="create_whip_session")
async def offer(request: Request, proxy_request: ProxyRequestDep, deps: DependenciesDep) -> Response:
    """Open a session on a replica with a free slot."""

    async def close_again(answer: ProxyResponse) -> None:
        session = get_session_id(answer)
        if session is not None:
            await deps.replicas.request_owner(
                session, ProxyRequest("DELETE", f"/api/v1/webrtc/offer/{session}")
            )

    default = await deps.controller.get_default_reference.remote()
    answer = await run_until_disconnect(
        request, deps.admission.open_session(proxy_request, default), on_disconnect=close_again
    )
    if answer.status == HTTPStatus.CONFLICT and default is None:
        await deps.require_reference()
    return make_response(answer)


@router.delete("/api/v1/webrtc/offer/{session_id}")
@router.delete("/api/v1/websocket/offer/{session_id}", operation_id="close_websocket_session")
async def close_session(session_id: str, proxy_request: ProxyRequestDep, deps: DependenciesDep) -> Response:
    """Close a session. It is no error if the session has already ended."""
    try:
        return make_response(await deps.replicas.request_owner(session_id, proxy_request))
    except NotFoundError:
        return Response(status_code=204)


@router.get("/api/v1/sessions")
async def list_sessions(deps: DependenciesDep) -> SessionList:
    """List the live sessions of all replicas."""
    return aggregate.merge_sessions(await deps.replicas.request_all(_LIST_SESSIONS))


@router.post("/whep")
async def create_whep_session(
    proxy_request: ProxyRequestDep, deps: DependenciesDep, session: str | None = None
) -> Response:
    """Watch a session, by default the newest of all."""
    if session is None:
        session = await _find_newest_session(deps)
        proxy_request = ProxyRequest(
            proxy_request.method,
            proxy_request.path,
            urlencode({"session": session}),
            proxy_request.headers,
            proxy_request.body,
        )
    return make_response(await deps.replicas.request_owner(session, proxy_request))


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
async def proxy_to_owner(session_id: str, proxy_request: ProxyRequestDep, deps: DependenciesDep) -> Response:
    """Pass any other request about a session to the replica that has it."""
    return make_response(await deps.replicas.request_owner(session_id, proxy_request))


async def _find_newest_session(deps: IngressDependencies) -> str:
    found = aggregate.merge_sessions(await deps.replicas.request_all(_LIST_SESSIONS)).sessions
    if not found:
        raise ConflictError("No session streams: push a camera to /whip first.")
    return found[-1].id
