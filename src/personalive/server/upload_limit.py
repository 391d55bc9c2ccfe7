"""A limit on the bytes of pictures that all clients together are uploading at a time."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from personalive.media.image import MAX_IMAGE_BYTES
from personalive.server.errors import make_error_response

MAX_BYTES = 4 * MAX_IMAGE_BYTES
_RETRY_AFTER_S = 5


class UploadLimitMiddleware:
    """Middleware that counts the bytes of requests to `path` in progress, and answers 503 beyond the limit."""

    def __init__(self, app: ASGIApp, path: str, max_bytes: int = MAX_BYTES) -> None:
        self._app = app
        self._path = path
        self._max_bytes = max_bytes
        self._bytes_in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 503."""
        if scope["type"] != "http" or scope["path"] != self._path:
            await self._app(scope, receive, send)
            return
        own = 0

        async def counted() -> Message:
            nonlocal own
            message = await receive()
            length = len(message.get("body", b""))
            if self._bytes_in_flight + length > self._max_bytes:
                raise _LimitExceededError
            own += length
            self._bytes_in_flight += length
            return message

        try:
            await self._app(scope, counted, send)
        except _LimitExceededError:
            detail = "Too many pictures are being sent to this server just now: try again in some seconds."
            headers = {"Retry-After": str(_RETRY_AFTER_S), "Connection": "close"}
            await make_error_response(503, detail, headers)(scope, receive, send)
        finally:
            self._bytes_in_flight -= own


class _LimitExceededError(Exception):
    """Raised when the limit is reached."""
