"""WHIP (RFC 9725) and WHEP (a draft): broadcasters such as OBS push a camera and pull the result.

Each resource that is created has an ETag for its ICE session, which a PATCH may name (`If-Match`). A connection
does not restart ICE: the answer is 422, as the RFC says, and the client opens another connection.

A WHIP client opens a session on the default reference, or on `?reference_id=`; with `?audio=true` its sound goes
out too. Any number of WHEP clients may watch a session, by default the newest.
"""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request, Response

from personalive.server.dependencies import ServerDep
from personalive.server.disconnect import run_until_disconnect
from personalive.server.errors import (
    BadRequestError,
    ConflictError,
    HttpError,
    NotFoundError,
    error_responses,
)
from personalive.server.server import Server
from personalive.server.sessions.session import ServerSession
from personalive.server.webrtc.ice import make_ice_servers
from personalive.server.webrtc.peer import Candidate
from personalive.server.webrtc.sdp_limits import check_candidates, check_sdp
from personalive.server.webrtc.signaling import CLIENT_LEFT_EARLY

router = APIRouter(tags=["broadcast"])

_SDP_TYPE, _SDP_FRAGMENT_TYPE = "application/sdp", "application/trickle-ice-sdpfrag"
_SDP_REQUEST_BODY = {
    "requestBody": {"required": True, "content": {_SDP_TYPE: {"schema": {"type": "string"}}}}
}
_FRAGMENT_REQUEST_BODY = {
    "requestBody": {"required": True, "content": {_SDP_FRAGMENT_TYPE: {"schema": {"type": "string"}}}}
}
_PATCH_RESPONSES: dict[str, Any] = {
    "status_code": 204,
    "responses": error_responses(400, 404, 412, 415, 422),
    "openapi_extra": _FRAGMENT_REQUEST_BODY,
}
_OFFER_RESPONSES: dict[str, Any] = {
    "status_code": 201,
    "response_class": Response,
    "responses": {
        201: {"content": {_SDP_TYPE: {"schema": {"type": "string"}}}, "description": "The answer"},
        **error_responses(400, 404, 409, 415, 503),
    },
    "openapi_extra": _SDP_REQUEST_BODY,
}


_ANSWER_TIMEOUT_S = 5.0
"""Seconds until an offer is answered, with 503 if it is not ready: broadcasters give up after 8 s."""
_ANY_ICE_SESSION = "*"


class UnsupportedBodyError(HttpError):
    """Raised for a body of another content type than the route accepts."""

    status = 415

    def __init__(self, media_type: str, method: str) -> None:
        name = "Accept-Patch" if method == "PATCH" else "Accept-Post"
        super().__init__(f"The body must be {media_type}.", headers={name: media_type})


class IceSessionMismatchError(HttpError):
    """Raised for a candidate of an ICE session that is not the connection's."""

    status = 412


class IceRestartError(HttpError):
    """Raised where a client asks for an ICE restart, which existing connections do not support."""

    status = 422


async def _read_body(request: Request, media_type: str) -> str:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != media_type:
        raise UnsupportedBodyError(media_type, request.method)
    try:
        return (await request.body()).decode()
    except UnicodeDecodeError:
        raise BadRequestError("The body is not text.") from None


async def _read_offer(request: Request) -> str:
    return await _read_body(request, _SDP_TYPE)


async def _read_fragment(request: Request) -> str:
    return await _read_body(request, _SDP_FRAGMENT_TYPE)


Sdp = Annotated[str, Depends(_read_offer)]
Fragment = Annotated[str, Depends(_read_fragment)]


@router.post("/whip", **_OFFER_RESPONSES)
async def create_whip_session(
    request: Request, server: ServerDep, sdp: Sdp, reference_id: str | None = None, audio: bool = False
) -> Response:
    """Push a camera: open a session. With `audio` its sound goes out too."""
    given: dict[str, object] = {"audio": audio}
    if reference_id is not None:
        given["reference_id"] = reference_id
    session, answer = await run_until_disconnect(
        request,
        server.signaling.answer_offer(sdp, given, send=False, timeout=_ANSWER_TIMEOUT_S),
        on_disconnect=lambda opened: opened[0].end(CLIENT_LEFT_EARLY),
    )
    return _make_created_response(answer, f"/whip/{session.id}", session, server)


@router.post("/whep", **_OFFER_RESPONSES)
async def create_whep_session(
    request: Request, server: ServerDep, sdp: Sdp, session: str | None = None
) -> Response:
    """Pull a session's animated frames: watch it."""
    live = server.sessions.all()
    if session is None and not live:
        raise ConflictError("No session streams: push a camera to /whip first.")
    watched = live[-1] if session is None else server.sessions.require(session)
    viewer, answer = await run_until_disconnect(
        request,
        server.signaling.answer_viewer(sdp, watched),
        on_disconnect=lambda opened: server.signaling.remove_viewer(opened[0]),
    )
    return _make_created_response(answer, f"/whep/{viewer}", watched, server)


@router.options("/whip", status_code=204, operation_id="whip_options")
@router.options("/whep", status_code=204, operation_id="whep_options")
async def describe_offers(server: ServerDep) -> Response:
    """Return the content type of an offer, and the ICE servers."""
    response = Response(status_code=204, headers={"Accept-Post": _SDP_TYPE, "Allow": "OPTIONS, POST"})
    return _add_ice_server_links(response, server)


@router.options("/whip/{id}", status_code=204, operation_id="whip_session_options")
@router.options("/whep/{id}", status_code=204, operation_id="whep_session_options")
async def describe_fragments(id: str) -> Response:
    """Return the content type of a patch."""
    del id
    headers = {"Accept-Patch": _SDP_FRAGMENT_TYPE, "Allow": "DELETE, OPTIONS, PATCH"}
    return Response(status_code=204, headers=headers)


@router.patch("/whip/{id}", **_PATCH_RESPONSES)
@router.patch("/whep/{id}", **_PATCH_RESPONSES)
async def trickle(
    id: str, server: ServerDep, fragment: Fragment, if_match: Annotated[str | None, Header()] = None
) -> Response:
    """Add ICE candidates. 422 where they ask for an ICE restart."""
    peer = server.signaling.get_peer(id)
    named = None if if_match is None else {part.strip() for part in if_match.split(",")}
    if named is not None and named.isdisjoint({peer.etag, _ANY_ICE_SESSION}):
        raise IceSessionMismatchError("If-Match names another ICE session than this one has.")
    if any(peer.is_ice_restart(username) for username in _parse_usernames(fragment)):
        raise IceRestartError(
            "A connection cannot restart ICE: end this session with DELETE, and POST a new offer."
        )
    await server.signaling.add_candidates(id, _parse_candidates(fragment))
    return Response(status_code=204)


@router.delete("/whip/{id}", status_code=200, response_class=Response, responses=error_responses(404))
async def delete_whip_session(id: str, server: ServerDep) -> Response:
    """End the session that a push opened."""
    await server.sessions.require(id).end("client_closed")
    return Response()


@router.delete("/whep/{id}", status_code=200, response_class=Response, responses=error_responses(404))
async def delete_whep_session(id: str, server: ServerDep) -> Response:
    """Stop watching."""
    if not await server.signaling.remove_viewer(id):
        raise NotFoundError("There is no such viewer; the session may have ended.")
    return Response()


def _make_created_response(answer: str, location: str, session: ServerSession, server: Server) -> Response:
    id = location.rpartition("/")[2]
    headers = {
        "Location": location,
        "ETag": server.signaling.get_peer(id).etag,
        "Accept-Patch": _SDP_FRAGMENT_TYPE,
        "X-Session-Id": session.id,
    }
    return _add_ice_server_links(Response(answer, 201, headers, _SDP_TYPE), server)


def _add_ice_server_links(response: Response, server: Server) -> Response:
    """Add a Link header for each STUN and TURN server, as clients expect."""
    for one in make_ice_servers(server.settings, time.time()):
        for url in one["urls"]:
            link = f'<{url}>; rel="ice-server"'
            if "username" in one:
                name, password = _quote(one["username"]), _quote(one["credential"])
                link += f"; username={name}; credential={password}"
                link += '; credential-type="password"'
            response.headers.append("Link", link)
    return response


def _quote(text: str) -> str:
    """Return the text as an HTTP quoted string."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _parse_usernames(fragment: str) -> list[str]:
    mark = "a=ice-ufrag:"
    return [line.removeprefix(mark).strip() for line in fragment.splitlines() if line.startswith(mark)]


def _parse_candidates(fragment: str) -> list[Candidate]:
    """Return the candidates in an SDP fragment, each with the media section that it belongs to.

    Raises `BadRequestError` for a fragment that is too large.
    """
    check_sdp(fragment)
    found: list[Candidate] = []
    mid: str | None = None
    for line in fragment.splitlines():
        if line.startswith("a=mid:"):
            mid = line.removeprefix("a=mid:").strip()
        elif line.startswith("a=candidate:"):
            found.append(Candidate(candidate=line.removeprefix("a="), sdpMid=mid, sdpMLineIndex=None))
        elif line.startswith("a=end-of-candidates"):
            found.append(Candidate(sdpMid=mid))
    check_candidates(len(found))
    return found
