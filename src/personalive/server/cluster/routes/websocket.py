"""WebSockets: each is passed on to the replica that has its session, message by message."""

from __future__ import annotations

import asyncio
from urllib.parse import quote

import aiohttp
from fastapi import APIRouter, WebSocket
from starlette.websockets import WebSocketDisconnect

from personalive.server.cluster.dependencies import IngressDependencies
from personalive.server.cluster.replica_client import ReplicaUnreachableError
from personalive.server.errors import NotFoundError
from personalive.server.websocket.websocket_sessions import SUBPROTOCOL

router = APIRouter()

_GOING_AWAY = 1001
_REFUSED = 1008


@router.websocket("/api/v1/websocket/{session_id}")
async def connect(websocket: WebSocket, session_id: str) -> None:
    """Carry a session's video and messages between the client and its replica."""
    deps: IngressDependencies = websocket.app.state.parts
    protocols = list(websocket.scope["subprotocols"])
    try:
        replica = await deps.replicas.find_owner(session_id)
        path = quote(websocket.scope["path"])
        async with deps.client.open_websocket(replica.address, path, protocols) as upstream:
            await websocket.accept(SUBPROTOCOL)
            await _carry(websocket, upstream)
    except (NotFoundError, ReplicaUnreachableError):
        await websocket.close(_REFUSED)  # before it is accepted: the answer is 403


async def _carry(websocket: WebSocket, upstream: aiohttp.ClientWebSocketResponse) -> None:
    """Pass messages on both ways until one side closes, and then close the other."""
    directions = [
        asyncio.create_task(_carry_up(websocket, upstream), name="websocket-up"),
        asyncio.create_task(_carry_down(websocket, upstream), name="websocket-down"),
    ]
    try:
        await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for direction in directions:
            direction.cancel()
        await asyncio.gather(*directions, return_exceptions=True)


async def _carry_up(websocket: WebSocket, upstream: aiohttp.ClientWebSocketResponse) -> None:
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            return
        if (data := message.get("bytes")) is not None:
            await upstream.send_bytes(data)
        else:
            await upstream.send_str(message["text"])


async def _carry_down(websocket: WebSocket, upstream: aiohttp.ClientWebSocketResponse) -> None:
    while True:
        message = await upstream.receive()
        try:
            if message.type is aiohttp.WSMsgType.BINARY:
                await websocket.send_bytes(message.data)
            elif message.type is aiohttp.WSMsgType.TEXT:
                await websocket.send_text(message.data)
            else:
                is_closed = message.type is aiohttp.WSMsgType.CLOSE
                code, reason = (message.data, message.extra) if is_closed else (_GOING_AWAY, "")
                await websocket.close(code or _GOING_AWAY, reason or "")
                return
        except (WebSocketDisconnect, RuntimeError):  # the client has left
            return
