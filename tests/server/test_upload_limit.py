from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from personalive.server.upload_limit import UploadLimitMiddleware
from tests.server.asgi import ask, pieces


async def takes_all(scope: Scope, receive: Receive, send: Send) -> None:
    while (await receive()).get("more_body"):
        pass
    await PlainTextResponse("taken")(scope, receive, send)


def guarded() -> ASGIApp:
    return UploadLimitMiddleware(takes_all, path="/picture", max_bytes=1000)


async def sent(app: ASGIApp, path: str, count: int) -> int:
    return (await ask(app, "POST", path, None, pieces([b"x" * 100] * count))).status


def test_what_all_send_at_once_is_bounded_and_given_back() -> None:
    async def run() -> None:
        app = guarded()
        most_is_there, go_on = asyncio.Event(), asyncio.Event()

        async def slowly() -> AsyncIterator[bytes]:
            yield b"x" * 800
            most_is_there.set()
            await go_on.wait()

        slow = asyncio.create_task(ask(app, "POST", "/picture", None, slowly()))
        await most_is_there.wait()
        assert await sent(app, "/picture", 3) == 503
        assert await sent(app, "/picture", 2) == 200
        assert await sent(app, "/other", 50) == 200
        go_on.set()
        assert (await slow).status == 200
        assert await sent(app, "/picture", 10) == 200
        assert await sent(app, "/picture", 11) == 503
        assert await sent(app, "/picture", 10) == 200

    asyncio.run(run())
