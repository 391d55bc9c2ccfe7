"""Cancel work when the client disconnects before it is done."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from fastapi import Request

from personalive.server.errors import HttpError

T = TypeVar("T")


class ClientDisconnectedError(HttpError):
    """Raised when the client has closed its connection, so that nobody reads the answer."""

    status = 499  # nginx's status for a client that has left

    def __init__(self) -> None:
        super().__init__("The client left before there was an answer.")


async def run_until_disconnect(
    request: Request, work: Coroutine[Any, Any, T], on_disconnect: Callable[[T], Awaitable[object]]
) -> T:
    """Run the work for the client that sent the request, whose body has been read.

    If the client disconnects, the work is cancelled, or undone by `on_disconnect` if it was done already, and
    `ClientDisconnectedError` is raised.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_wait_for_disconnect(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not leaving.done():
            return working.result()
    finally:
        leaving.cancel()
        if not working.done():
            working.cancel()
            await asyncio.wait({working})
    if not working.cancelled() and working.exception() is None:
        await on_disconnect(working.result())
    raise ClientDisconnectedError


async def _wait_for_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
