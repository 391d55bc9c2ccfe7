"""Middleware of every route: API key, checks of the origin, limits on bodies, security headers, and access log.

All are plain ASGI. Their order, from the outside in: access log, security headers, CORS, origin, key, body.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import logging
import time
from collections.abc import Mapping
from http import HTTPStatus
from urllib.parse import urlsplit

from fastapi import FastAPI
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from personalive.media.image import MAX_IMAGE_BYTES
from personalive.server.errors import make_error_response
from personalive.server.settings import Settings
from personalive.server.telemetry import logs
from personalive.server.upload_limit import UploadLimitMiddleware

REFERENCE_PATH = "/api/v1/personalive/reference"
MAX_BODY_BYTES = 64_000
"""The limit of all bodies but pictures: an offer has 20,000 bytes at most, and parsing blocks the event loop."""
MAX_JSON_VALUES = 1000
LEAST_RATE = 32_000
"""Bytes per second, as over a slow connection."""
PAGE_PATHS = frozenset({"/", "/stage", "/docs"})
HEALTH_PATHS = frozenset({"/health", "/health/live", "/health/ready"})
PUBLIC_PATHS = PAGE_PATHS | HEALTH_PATHS
ASSETS_PATH = "/assets/"
WEBSOCKET_PATH = "/api/v1/websocket/"
_FOREIGN_SITES = frozenset({"cross-site", "same-site"})
"""`Sec-Fetch-Site` of requests by pages of another origin; another port of this machine is another origin."""

_CLIENT_CLOSED_REQUEST = 499  # nginx's status for a client that left before there was an answer
_API_CSP = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_PAGE_CSP = (
    "default-src 'self'; connect-src 'self'; img-src 'self' data: blob:; media-src 'self' blob: mediastream:; "
    "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
# The API's viewer sets inline styles.
_DOCS_CSP = _PAGE_CSP + "; style-src 'self' 'unsafe-inline'"


def install_middleware(app: FastAPI, settings: Settings) -> None:
    """Add the middleware that the settings ask for to `app`. Call it after `errors.install_error_handlers`."""
    app.add_middleware(BodyLimitMiddleware, timeout_s=settings.body_timeout_s)
    app.add_middleware(UploadLimitMiddleware, path=REFERENCE_PATH)
    if settings.api_key is not None:
        app.add_middleware(ApiKeyMiddleware, key=settings.api_key.get_secret_value())
    elif settings.on_loopback and not settings.insecure:
        app.add_middleware(OriginMiddleware, host=settings.host, origins=settings.cors_origins)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["GET", "POST", "PATCH", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "If-Match"],
            expose_headers=[
                "Accept-Patch",
                "Accept-Post",
                "ETag",
                "Link",
                "Location",
                "Retry-After",
                "X-Session-Id",
            ],
        )
    app.add_middleware(SecurityHeadersMiddleware)
    app.add_middleware(AccessLogMiddleware)


class ApiKeyMiddleware:
    """Middleware that demands the API key, except for the page's static files and the health routes."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app = app
        self._key = key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 401."""
        if scope["type"] == "lifespan" or is_public(scope) or self._is_authorized(scope):
            await self._app(scope, receive, send)
            return
        detail = "This server wants its key: send the header `Authorization: Bearer KEY`."
        await make_error_response(401, detail, {"WWW-Authenticate": "Bearer"})(scope, receive, send)

    def _is_authorized(self, scope: Scope) -> bool:
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        scheme, _, token = given.partition(b" ")
        # Compare even if the scheme is wrong, so that all refusals take the same time.
        return hmac.compare_digest(token.strip(b" \t"), self._key) & (scheme.lower() == b"bearer")


def is_public(scope: Scope) -> bool:
    """Return whether a request needs no key. A WebSocket shows a token, which an offer with the key has got."""
    path: str = scope["path"]
    if scope["type"] == "websocket":
        return path.startswith(WEBSOCKET_PATH)
    reads = scope["type"] == "http" and scope["method"] in {"GET", "HEAD"}
    return reads and (path in PUBLIC_PATHS or path.startswith(ASSETS_PATH))


class OriginMiddleware:
    """Middleware that keeps foreign web pages from using a server that trusts all programs on this machine.

    A page may send requests to 127.0.0.1, or make a name of its domain resolve there. The first shows in `Origin`,
    or for pictures and similar requests in `Sec-Fetch-Site`; the second shows in `Host`, which must be an IP
    address or a name of this machine.
    """

    def __init__(self, app: ASGIApp, host: str, origins: tuple[str, ...]) -> None:
        self._app = app
        self._host = host.lower()
        self._origins = frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 403."""
        if scope["type"] == "lifespan" or self._is_same_origin(Headers(scope=scope)):
            await self._app(scope, receive, send)
            return
        detail = (
            "Requests from other web pages or under other names are refused without a key: set one, or list the "
            "page's origin with --cors-origin."
        )
        await make_error_response(403, detail)(scope, receive, send)

    def _is_same_origin(self, headers: Mapping[str, str]) -> bool:
        host, origin = headers.get("host", ""), headers.get("origin")
        if not self._is_local_host(host):
            return False
        if origin is None:
            return headers.get("sec-fetch-site") not in _FOREIGN_SITES or _is_navigation(headers)
        if origin in self._origins or "*" in self._origins:
            return True
        return origin.lower().partition("://")[2] == host.lower()

    def _is_local_host(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name in {self._host, "localhost"} or name.endswith(".localhost"):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def _is_navigation(headers: Mapping[str, str]) -> bool:
    """Return whether the request follows a link, so that only the user, and no page, sees the answer."""
    return headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"


class BodyLimitMiddleware:
    """Middleware that reads a body before the route, and refuses one that is too large or arrives too slowly.

    A body may take `timeout_s`, and a second more for every `LEAST_RATE` bytes that have arrived. It may not pause
    for `timeout_s`.
    """

    def __init__(self, app: ASGIApp, timeout_s: float) -> None:
        self._app = app
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its body, or answer 413 or 408."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        length = headers.get("content-length", "0")
        if length == "0" and "transfer-encoding" not in headers:
            await self._app(scope, receive, send)
            return
        body = await self._read_checked(headers, length, scope["path"] == REFERENCE_PATH, receive)
        if isinstance(body, JSONResponse):
            await body(scope, receive, send)
        elif body is not None:
            await self._app(scope, _replay_body(body, receive), send)

    async def _read_checked(
        self, headers: Headers, length: str, is_picture: bool, receive: Receive
    ) -> bytes | JSONResponse | None:
        """Return the body, the reason for its refusal, or None if the client left."""
        most = MAX_IMAGE_BYTES if is_picture else MAX_BODY_BYTES
        # The connection stays open for the rest of the body: closing it could lose the answer.
        too_large = make_error_response(
            413, f"The body is too large: {_format_size(most)} are accepted here."
        )
        if length.isdecimal() and int(length) > most:
            return too_large
        try:
            body = await _read_body(receive, most, self._timeout_s)
        except TimeoutError:
            detail = (
                f"The body came too slowly: after {self._timeout_s:g} s, {LEAST_RATE // 1000} kB have to come each "
                "second."
            )
            return make_error_response(408, detail, {"Connection": "close"})
        except _TooLargeError:
            return too_large
        if (
            body is not None
            and not is_picture
            and _is_json(headers)
            and _count_json_values(body) > MAX_JSON_VALUES
        ):
            return make_error_response(413, f"The body has too many values: {MAX_JSON_VALUES} are accepted.")
        return body


def _format_size(limit: int) -> str:
    return f"{limit // 1_000_000} MB" if limit >= 1_000_000 else f"{limit // 1000} kB"


def _is_json(headers: Headers) -> bool:
    return "json" in headers.get("content-type", "json").lower()


def _count_json_values(body: bytes) -> int:
    """Return an upper bound of the values in a JSON text. It is not parsed, as parsing many values takes long."""
    return sum(map(body.count, (b",", b"[", b"{")))


class _TooLargeError(Exception):
    """Raised for a body over its limit."""


async def _read_body(receive: Receive, most: int, seconds: float) -> bytes | None:
    """Return the body, or None if the client left.

    Raises `_TooLargeError` as soon as the body is too large, and `TimeoutError` if it arrives too slowly.
    """
    body = bytearray()
    clock = asyncio.get_running_loop().time
    begun = clock()
    async with asyncio.timeout(seconds) as limit:
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            if len(body) > most:
                raise _TooLargeError
            if not message.get("more_body", False):
                return bytes(body)
            limit.reschedule(min(clock(), begun + len(body) / LEAST_RATE) + seconds)


def _replay_body(content: bytes, receive: Receive) -> Receive:
    first: Message | None = {"type": "http.request", "body": content, "more_body": False}

    async def replay() -> Message:
        nonlocal first
        if first is None:
            return await receive()
        message, first = first, None
        return message

    return replay


class SecurityHeadersMiddleware:
    """Middleware that adds security headers, which stop browsers from guessing types and embedding answers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and add the headers to its answer."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Referrer-Policy"] = "no-referrer"
                headers["Cross-Origin-Resource-Policy"] = "same-origin"
                headers["Content-Security-Policy"] = _csp_for(scope["path"])
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await self._app(scope, receive, send_with_headers if scope["type"] == "http" else send)


def _csp_for(path: str) -> str:
    if path == "/docs":
        return _DOCS_CSP
    return _PAGE_CSP if path in PAGE_PATHS or path.startswith(ASSETS_PATH) else _API_CSP


class AccessLogMiddleware:
    """Middleware that logs a request's method, path, status and milliseconds; never queries, headers or bodies."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and log the status of its response."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, status = time.perf_counter(), 0

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            status = status or _CLIENT_CLOSED_REQUEST
            broken = status >= HTTPStatus.INTERNAL_SERVER_ERROR
            logs.event(
                "request",
                level=logging.WARNING if broken else logging.INFO,
                method=scope["method"],
                path=scope["path"],
                status=status,
                ms=round(1000 * (time.perf_counter() - begun), 1),
            )
