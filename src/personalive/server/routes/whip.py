"""WHIP in and WHEP out (RFC 9725 and its sibling draft): OBS and its like push a camera and pull the result.

What is created has an ETag for its ICE session, which a PATCH may name (`If-Match`). ICE is not begun anew on a
connection: 422 says so, as the RFC has it, and the client opens another one.

A WHIP client opens a session on the default reference, or on `?reference_id=`. A WHEP client watches a session,
by default the newest; any number may.
"""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request, Response

from personalive.server.dependencies import ServerDep
from personalive.server.disconnect import while_there
from personalive.server.errors import BadRequestError, ConflictError, HttpError, NotFoundError, errors
from personalive.server.server import Server
from personalive.server.sessions.session import Stream
from personalive.server.webrtc.ice import ice_servers
from personalive.server.webrtc.peer import Candidate
from personalive.server.webrtc.sdp_limits import check_candidates, check_sdp
from personalive.server.webrtc.signaling import CLIENT_LEFT

router = APIRouter(tags=["broadcast"])

_SDP, _FRAGMENT = "application/sdp", "application/trickle-ice-sdpfrag"
_TAKES_SDP = {"requestBody": {"required": True, "content": {_SDP: {"schema": {"type": "string"}}}}}
_TAKES_FRAGMENT = {"requestBody": {"required": True, "content": {_FRAGMENT: {"schema": {"type": "string"}}}}}
_PATCHED: dict[str, Any] = {
    "status_code": 204,
    "responses": errors(400, 404, 412, 415, 422),
    "openapi_extra": _TAKES_FRAGMENT,
}
_GIVES_SDP: dict[int | str, dict[str, Any]] = {
    201: {"content": {_SDP: {"schema": {"type": "string"}}}, "description": "The answer"}
}


_ANSWER_S = 5.0
"""By then an offer is answered, if need be by 503: broadcasters give up after 8 s."""
_ANY_ICE_SESSION = "*"


class WrongBodyError(HttpError):
    """A body of another kind than the route takes."""

    status = 415

    def __init__(self, kind: str, method: str) -> None:
        name = "Accept-Patch" if method == "PATCH" else "Accept-Post"
        super().__init__(f"The body must be {kind}.", headers={name: kind})


class OtherIceSessionError(HttpError):
    """A candidate for an ICE session that there is no more."""

    status = 412


class IceRestartError(HttpError):
    """ICE is to begin anew, which it does not on a connection that there is."""

    status = 422


async def _body(request: Request, kind: str) -> str:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != kind:
        raise WrongBodyError(kind, request.method)
    try:
        return (await request.body()).decode()
    except UnicodeDecodeError:
        raise BadRequestError("The body is not text.") from None


async def _offer(request: Request) -> str:
    return await _body(request, _SDP)


async def _fragment(request: Request) -> str:
    return await _body(request, _FRAGMENT)


Sdp = Annotated[str, Depends(_offer)]
Fragment = Annotated[str, Depends(_fragment)]


@router.post(
    "/whip",
    status_code=201,
    response_class=Response,
    responses={**_GIVES_SDP, **errors(400, 404, 409, 415, 503)},
    openapi_extra=_TAKES_SDP,
)
async def push(request: Request, server: ServerDep, sdp: Sdp, reference_id: str | None = None) -> Response:
    """Push a camera: opens a session."""
    given = {} if reference_id is None else {"reference_id": reference_id}
    stream, answer = await while_there(
        request,
        server.calls.offer(sdp, given, send=False, within=_ANSWER_S),
        undo=lambda opened: opened[0].end(CLIENT_LEFT),
    )
    return _created(answer, f"/whip/{stream.id}", stream, server)


@router.post(
    "/whep",
    status_code=201,
    response_class=Response,
    responses={**_GIVES_SDP, **errors(400, 404, 409, 415, 503)},
    openapi_extra=_TAKES_SDP,
)
async def pull(request: Request, server: ServerDep, sdp: Sdp, session: str | None = None) -> Response:
    """Pull a session's animated frames."""
    live = server.streams.all()
    if session is None and not live:
        raise ConflictError("No session streams: push a camera to /whip first.")
    stream = live[-1] if session is None else server.streams.require(session)
    viewer, answer = await while_there(
        request, server.calls.view(sdp, stream), undo=lambda opened: server.calls.leave(opened[0])
    )
    return _created(answer, f"/whep/{viewer}", stream, server)


@router.options("/whip", status_code=204, operation_id="whip_options")
@router.options("/whep", status_code=204, operation_id="whep_options")
async def offers_taken(server: ServerDep) -> Response:
    """Say what an offer must be, and name the ICE servers."""
    response = Response(status_code=204, headers={"Accept-Post": _SDP, "Allow": "OPTIONS, POST"})
    return _with_ice_servers(response, server)


@router.options("/whip/{id}", status_code=204, operation_id="whip_session_options")
@router.options("/whep/{id}", status_code=204, operation_id="whep_session_options")
async def fragments_taken(id: str) -> Response:
    """Say what a patch must be."""
    del id
    headers = {"Accept-Patch": _FRAGMENT, "Allow": "DELETE, OPTIONS, PATCH"}
    return Response(status_code=204, headers=headers)


@router.patch("/whip/{id}", **_PATCHED)
@router.patch("/whep/{id}", **_PATCHED)
async def trickle(
    id: str, server: ServerDep, fragment: Fragment, if_match: Annotated[str | None, Header()] = None
) -> Response:
    """Add ICE candidates; 422 where they are of an ICE session that is to begin anew."""
    peer = server.calls.peer(id)
    named = None if if_match is None else {part.strip() for part in if_match.split(",")}
    if named is not None and named.isdisjoint({peer.etag, _ANY_ICE_SESSION}):
        raise OtherIceSessionError("If-Match names another ICE session than this one has.")
    if any(peer.restarts(username) for username in _usernames(fragment)):
        raise IceRestartError(
            "ICE is not begun anew on a connection: end this session with DELETE, and POST a new offer."
        )
    await server.calls.add_candidates(id, _candidates(fragment))
    return Response(status_code=204)


@router.delete("/whip/{id}", status_code=200, response_class=Response, responses=errors(404))
async def stop(id: str, server: ServerDep) -> Response:
    """End the session that a push opened."""
    await server.streams.require(id).end("client_closed")
    return Response()


@router.delete("/whep/{id}", status_code=200, response_class=Response, responses=errors(404))
async def leave(id: str, server: ServerDep) -> Response:
    """Stop watching."""
    if not await server.calls.leave(id):
        raise NotFoundError("Nobody watches under that name; the session may have ended.")
    return Response()


def _created(answer: str, location: str, stream: Stream, server: Server) -> Response:
    id = location.rpartition("/")[2]
    headers = {
        "Location": location,
        "ETag": server.calls.peer(id).etag,
        "Accept-Patch": _FRAGMENT,
        "X-Session-Id": stream.id,
    }
    return _with_ice_servers(Response(answer, 201, headers, _SDP), server)


def _with_ice_servers(response: Response, server: Server) -> Response:
    """Name the STUN and TURN servers in a field each, as clients read them."""
    for one in ice_servers(server.settings, time.time()):
        for url in one["urls"]:
            link = f'<{url}>; rel="ice-server"'
            if "username" in one:
                name, password = _quoted(one["username"]), _quoted(one["credential"])
                link += f"; username={name}; credential={password}"
                link += '; credential-type="password"'
            response.headers.append("Link", link)
    return response


def _quoted(text: str) -> str:
    """As a string of HTTP's."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _usernames(fragment: str) -> list[str]:
    mark = "a=ice-ufrag:"
    return [line.removeprefix(mark).strip() for line in fragment.splitlines() if line.startswith(mark)]


def _candidates(fragment: str) -> list[Candidate]:
    """The candidates in an SDP fragment, each with the media section that it belongs to.

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
