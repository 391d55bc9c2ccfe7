"""Requests from the ingress to a replica, which answers as the single server does, under a key of its own.

They go straight to the replica, past Ray Serve: a replica that is being drained gets no calls from Serve any more,
and its sessions must be reached all the same. Nor do they wait for a session's slot, or take one.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
from yarl import URL

CONNECT_S = 2.0
"""Seconds: within a cluster a machine that does not take a connection by then is gone."""
ANSWER_S = 60.0
_THERE = frozenset({"content-type", "range", "if-match", "if-range", "if-none-match", "accept"})
_BACK = frozenset(
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
LINKS = ", "
"""Between the values of several Link fields, kept as one."""
_CHUNK = 1 << 16


class UnreachableError(Exception):
    """The other side is gone, or does not answer."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request: `path` begins with a slash, `query` has no question mark, both are still quoted."""

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Answered:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def ok(self) -> bool:
        """Whether it was done."""
        return self.status < 400


@dataclass(frozen=True, slots=True)
class Answering:
    """An answer whose body still comes, in pieces."""

    status: int
    headers: Mapping[str, str]
    length: int | None
    body: AsyncIterator[bytes]


def session_in(answer: Answered) -> str | None:
    """The session that an answer says was opened."""
    if not answer.ok:
        return None
    named = answer.headers.get("X-Session-Id")
    if named is not None:
        return named
    try:
        told = json.loads(answer.body)["sessionId"]
    except (ValueError, KeyError, TypeError):
        return None
    return str(told)


class Wire:
    """Use it on one event loop only, and close it there."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def ask(self, address: str, key: str, asked: Asked, *, within: float = ANSWER_S) -> Answered:
        """The whole answer. Raises `UnreachableError` where none comes within so many seconds."""
        async with self.asking(address, key, asked, within=within) as answer:
            try:
                body = b"".join([piece async for piece in answer.body])
            except (aiohttp.ClientError, TimeoutError) as error:
                raise UnreachableError(str(error)) from error
            return Answered(answer.status, answer.headers, body)

    @asynccontextmanager
    async def asking(
        self, address: str, key: str, asked: Asked, *, within: float | None = None
    ) -> AsyncIterator[Answering]:
        """The answer as it comes. Raises `UnreachableError` where it does not begin."""
        headers = {name: value for name, value in asked.headers.items() if name.lower() in _THERE}
        headers["Authorization"] = f"Bearer {key}"
        target = f"{address}{asked.path}" + (f"?{asked.query}" if asked.query else "")
        try:
            response = await self._open().request(
                asked.method,
                URL(target, encoded=True),
                headers=headers,
                data=asked.body or None,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=within, sock_connect=CONNECT_S),
            )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise UnreachableError(f"{type(error).__name__}: {error}") from error
        try:
            back = {name: value for name, value in response.headers.items() if name.lower() in _BACK}
            if len(links := response.headers.getall("Link", [])) > 1:
                back["Link"] = LINKS.join(links)
            yield Answering(
                response.status, back, response.content_length, response.content.iter_chunked(_CHUNK)
            )
        finally:
            response.release()

    async def close(self) -> None:
        """End its connections."""
        if self._session is not None:
            await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session
