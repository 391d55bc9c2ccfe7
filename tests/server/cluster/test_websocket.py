"""A WebSocket through the ingress to a server, where Ray's part, the list of the replicas, is made up."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI
from websockets.exceptions import InvalidStatus

from personalive.server.cluster.messages import DesiredState, ReplicaStatus
from personalive.server.cluster.replica_client import ReplicaClient
from personalive.server.cluster.replica_set import ReplicaSet
from personalive.server.cluster.routes import websocket
from personalive.server.run import bind_socket, make_http_config
from tests.server.served import Served, served
from tests.server.websocket.client import WebSocketClient


class Controller:
    """It knows a replica by the id of each session of one server."""

    def __init__(self, server: Served) -> None:
        self._server = server
        self.list_replicas = SimpleNamespace(remote=self._list)

    async def _list(self) -> list[ReplicaStatus]:
        host, port = self._server.address
        return [
            ReplicaStatus(
                id=session.id,
                node=host,
                address=f"http://{host}:{port}",
                key="",
                stage="serving",
                status="loaded",
                sessions=1,
                slots=1,
                applied_state=DesiredState(),
            )
            for session in self._server.server.sessions.all()
        ]


@pytest.fixture(scope="module")
def replica(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("recordings"), max_sessions=2) as started:
        yield started


@pytest.fixture(scope="module")
def ingress(replica: Served) -> Iterator[str]:
    """The ingress's route, on an event loop that is not the replica's."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> Any:
        client = ReplicaClient()
        controller: Any = Controller(replica)
        app.state.parts = SimpleNamespace(client=client, replicas=ReplicaSet(controller, client))
        yield
        await client.close()

    app = FastAPI(lifespan=lifespan)
    app.include_router(websocket.router)
    listener = bind_socket("127.0.0.1", 0)
    server = uvicorn.Server(make_http_config(app))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join(10)
    listener.close()


async def opened(replica: Served) -> WebSocketClient:
    host, port = replica.address
    client = WebSocketClient(f"http://{host}:{port}")
    (await client.offer()).raise_for_status()
    return client


def test_sound_goes_both_ways(replica: Served, ingress: str) -> None:
    async def act() -> None:
        async with await opened(replica) as client:
            session = replica.server.sessions.require(client.id)
            client.url = ingress
            await client.connect()
            await client.say({"audio": True})
            await client.until(lambda: client.told("parameters_updated"), "an answer")
            await client.stream(30, with_sound=True)
            await client.until(lambda: client.sounds > 10, "sound")
            assert session.audio.dropped == 0

    asyncio.run(asyncio.wait_for(act(), 60))


def test_both_ways_and_the_close_code(replica: Served, ingress: str) -> None:
    async def act() -> None:
        async with await opened(replica) as client:
            client.url = ingress
            await client.connect()
            await client.stream(20)
            await client.until(lambda: len(client.seen) >= 3, "frames")
            await client.until(lambda: client.acknowledged, "acknowledgements")
            await client.say({"expression": 1.5})
            await client.until(lambda: client.told("parameters_updated"), "an answer")
            await client.socket.send(b"\x01")
            code, reason = await client.closed()
            assert code == 1007
            assert "12 bytes or more" in (reason or "")

    asyncio.run(asyncio.wait_for(act(), 60))


def test_a_client_that_leaves_ends_its_session(replica: Served, ingress: str) -> None:
    async def act() -> None:
        async with await opened(replica) as client:
            client.url = ingress
            await client.connect()
            assert len(replica.server.sessions) == 1
        for _ in range(500):
            if len(replica.server.sessions) == 0:
                return
            await asyncio.sleep(0.02)
        raise TimeoutError("the session is left")

    asyncio.run(asyncio.wait_for(act(), 60))


def test_wrong_tokens_and_unknown_sessions_are_refused(replica: Served, ingress: str) -> None:
    async def act() -> None:
        async with await opened(replica) as client:
            client.url, token = ingress, client.token
            client.token = "wrong"
            for id in (client.id, "unknown"):
                client.id = id
                with pytest.raises(InvalidStatus) as raised:
                    await client.connect()
                assert raised.value.response.status_code == 403
            client.id, client.token = replica.server.sessions.all()[0].id, token
            await client.connect()

    asyncio.run(asyncio.wait_for(act(), 60))
