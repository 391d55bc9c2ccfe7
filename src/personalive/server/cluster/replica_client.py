"""Requests from the ingress to a replica, which has the single server's API and a separate key.

They go directly to the replica and not through Ray Serve: Serve sends no more calls to a replica that is being
drained, but its sessions must remain reachable. The requests neither wait for a session's slot nor take one.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
from yarl import URL

from personalive.server.websocket_protocol import MAX_MESSAGE_BYTES

CONNECT_TIMEOUT_S = 2.0
"""Seconds after which a machine of the cluster that accepts no connection counts as gone."""
RESPONSE_TIMEOUT_S = 60.0
_REQUEST_HEADERS = frozenset({"content-type", "range", "if-match", "if-range", "if-none-match", "accept"})
_RESPONSE_HEADERS = frozenset(
    {
        "accept-patch",
        "accept-post",
        "accept-ranges",
        "allow",
        "content-disposition",
        "content-range",
        "content-type",
        "etag",
        "last-modified",
        "link",
        "location",
        "retry-after",
        "x-session-id",
    }
)
LINK_SEPARATOR = ", "
"""Separates the values of several Link fields that are kept as one."""
_CHUNK_BYTES = 1 << 16


class ReplicaUnreachableError(Exception):
    """The replica is gone, or does not answer."""


@dataclass(frozen=True, slots=True)
class ProxyRequest:
    """A request. `path` begins with a slash, `query` has no question mark, and both are still percent-encoded."""

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class ProxyResponse:
    """A replica's complete answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def ok(self) -> bool:
        """Whether the request succeeded."""
        return self.status < 400


@dataclass(frozen=True, slots=True)
class StreamingProxyResponse:
    """An answer whose body is still arriving, in pieces."""

    status: int
    headers: Mapping[str, str]
    length: int | None
    body: AsyncIterator[bytes]


def get_session_id(answer: ProxyResponse) -> str | None:
    """Return the id of the session that an answer says was opened, or None."""
    if not answer.ok:
        return None
    named = answer.headers.get("X-Session-Id")
    if named is not None:
        return named
    try:
        session_id = json.loads(answer.body)["sessionId"]
    except (ValueError, KeyError, TypeError):
        return None
    return str(session_id)


class ReplicaClient:
    """A client for all replicas. Use it on one event loop only, and close it there."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def request(
        self, address: str, key: str, proxy_request: ProxyRequest, *, timeout: float = RESPONSE_TIMEOUT_S
    ) -> ProxyResponse:
        """Return the whole answer. Raises `ReplicaUnreachableError` if none comes within `timeout` seconds."""
        async with self.stream(address, key, proxy_request, timeout=timeout) as answer:
            try:
                body = b"".join([piece async for piece in answer.body])
            except (aiohttp.ClientError, TimeoutError) as error:
                raise ReplicaUnreachableError(str(error)) from error
            return ProxyResponse(answer.status, answer.headers, body)

    @asynccontextmanager
    async def stream(
        self, address: str, key: str, proxy_request: ProxyRequest, *, timeout: float | None = None
    ) -> AsyncIterator[StreamingProxyResponse]:
        """Yield the answer as it arrives. Raises `ReplicaUnreachableError` if it does not begin."""
        headers = {
            name: value for name, value in proxy_request.headers.items() if name.lower() in _REQUEST_HEADERS
        }
        headers["Authorization"] = f"Bearer {key}"
        target = f"{address}{proxy_request.path}" + (f"?{proxy_request.query}" if proxy_request.query else "")
        try:
            response = await self._get_session().request(
                proxy_request.method,
                URL(target, encoded=True),
                headers=headers,
                data=proxy_request.body or None,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=timeout, sock_connect=CONNECT_TIMEOUT_S),
            )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ReplicaUnreachableError(f"{type(error).__name__}: {error}") from error
        try:
            back = {
                name: value for name, value in response.headers.items() if name.lower() in _RESPONSE_HEADERS
            }
            if len(links := response.headers.getall("Link", [])) > 1:
                back["Link"] = LINK_SEPARATOR.join(links)
            yield StreamingProxyResponse(
                response.status, back, response.content_length, response.content.iter_chunked(_CHUNK_BYTES)
            )
        finally:
            response.release()

    @asynccontextmanager
    async def open_websocket(
        self, address: str, path: str, protocols: Sequence[str]
    ) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """Yield a WebSocket to a replica. Raises `ReplicaUnreachableError` if it does not accept one."""
        try:
            opened = await self._get_session().ws_connect(
                URL(f"{address}{path}", encoded=True), protocols=protocols, max_msg_size=MAX_MESSAGE_BYTES
            )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ReplicaUnreachableError(f"{type(error).__name__}: {error}") from error
        async with opened:
            yield opened

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    def _get_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session
