"""The web page and its files."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from personalive.server.errors import NotFoundError
from personalive.server.static_files import DOCS_FILE, STAGE_FILE, load_assets, render_index

router = APIRouter(include_in_schema=False)


@router.api_route("/", methods=["GET", "HEAD"])
async def page(request: Request) -> Response:
    """Return the page."""
    return Response(render_index(request.app.version), media_type="text/html; charset=utf-8")


@router.api_route("/stage", methods=["GET", "HEAD"])
async def stage() -> Response:
    """Return a page that shows only the result, for a broadcaster's browser source."""
    return _file_response(STAGE_FILE)


@router.api_route("/docs", methods=["GET", "HEAD"])
async def docs() -> Response:
    """Return the page on which the API can be read and tried."""
    return _file_response(DOCS_FILE)


@router.api_route("/assets/{name:path}", methods=["GET", "HEAD"])
async def asset(name: str, request: Request) -> Response:
    """Return a file of the page."""
    found = load_assets().get(name)
    if found is None:
        raise NotFoundError("There is no such file.")
    headers = {"ETag": found.etag, "Cache-Control": "no-cache"}
    if request.headers.get("if-none-match") == found.etag:
        return Response(status_code=304, headers=headers)
    return Response(found.content, headers=headers, media_type=found.type)


def _file_response(name: str) -> Response:
    found = load_assets()[name]
    return Response(found.content, media_type=found.type)
