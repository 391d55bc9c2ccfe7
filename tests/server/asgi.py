"""Calling an ASGI application by hand, for what an HTTP client would not do: slow, endless and broken bodies."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Any

from starlette.types import ASGIApp, Message


@dataclass
class Answered:
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    taken: int = 0
    """How many pieces of the body the application took."""

    @property
    def detail(self) -> Any:
        return json.loads(self.body)["detail"]


async def pieces(parts: Iterable[bytes], pause: float = 0.0) -> AsyncIterator[bytes]:
    for part in parts:
        await asyncio.sleep(pause)
        yield part


async def ask(
    app: ASGIApp,
    method: str,
    path: str,
    headers: dict[str, str] | None = None,
    body: AsyncIterator[bytes] | None = None,
    *,
    query: str = "",
    leave: bool = False,
) -> Answered:
    """One request. With `leave` the client is gone once the body's pieces are."""
    answered = Answered()
    given = {"host": "127.0.0.1:8000"} | {name.lower(): value for name, value in (headers or {}).items()}
    if body is not None and "content-length" not in given:
        given["transfer-encoding"] = "chunked"

    whole = asyncio.Event()

    async def receive() -> Message:
        answered.taken += 1
        if body is not None:
            async for part in body:
                return {"type": "http.request", "body": part, "more_body": True}
        if leave:
            return {"type": "http.disconnect"}
        if whole.is_set():  # the client stays, and says no more
            await asyncio.Event().wait()
        whole.set()
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            answered.status = message["status"]
            answered.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            answered.body += message.get("body", b"")

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in given.items()],
        "client": ("127.0.0.1", 50_000),
        "server": ("127.0.0.1", 8000),
    }
    await app(scope, receive, send)
    return answered
