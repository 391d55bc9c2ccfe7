"""WHIP in and WHEP out (RFC 9725 and its sibling draft): OBS and its like push a camera and pull the result.

A WHIP client opens a session on the default reference, or on `?reference_id=`. A WHEP client watches a session,
by default the newest; any number may.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response

from personalive.errors import UnsupportedMediaError
from personalive.serving.answers import BadRequestError, ConflictError, NotFoundError, errors
from personalive.serving.connections.calls import CLIENT_LEFT
from personalive.serving.connections.limits import check_candidates, check_sdp
from personalive.serving.connections.peer import Candidate
from personalive.serving.dependencies import ServerDep
from personalive.serving.leaving import while_there
from personalive.serving.live.stream import Stream

router = APIRouter(tags=["broadcast"])

_SDP, _FRAGMENT = "application/sdp", "application/trickle-ice-sdpfrag"
_TAKES_SDP = {"requestBody": {"required": True, "content": {_SDP: {"schema": {"type": "string"}}}}}
_TAKES_FRAGMENT = {"requestBody": {"required": True, "content": {_FRAGMENT: {"schema": {"type": "string"}}}}}
_GIVES_SDP: dict[int | str, dict[str, Any]] = {
    201: {"content": {_SDP: {"schema": {"type": "string"}}}, "description": "The answer"}
}


async def _body(request: Request, kind: str) -> str:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != kind:
        raise UnsupportedMediaError(f"The body must be {kind}.")
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
        server.calls.offer(sdp, given, send=False),
        undo=lambda opened: opened[0].end(CLIENT_LEFT),
    )
    return _created(answer, f"/whip/{stream.id}", stream)


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
    return _created(answer, f"/whep/{viewer}", stream)


@router.patch("/whip/{id}", status_code=204, responses=errors(400, 404, 415), openapi_extra=_TAKES_FRAGMENT)
@router.patch("/whep/{id}", status_code=204, responses=errors(400, 404, 415), openapi_extra=_TAKES_FRAGMENT)
async def trickle(id: str, server: ServerDep, fragment: Fragment) -> Response:
    """Add ICE candidates."""
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


def _created(answer: str, location: str, stream: Stream) -> Response:
    headers = {"Location": location, "X-Session-Id": stream.id, "Access-Control-Expose-Headers": "Location"}
    return Response(answer, 201, headers, _SDP)


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
