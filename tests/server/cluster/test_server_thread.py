"""A replica's server on its own thread, asked over its own port: no Ray needed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from functools import partial

import pytest

from personalive.server.cluster.replica_client import (
    ProxyRequest,
    ProxyResponse,
    ReplicaClient,
    ReplicaUnreachableError,
    get_session_id,
)
from personalive.server.cluster.replica_settings import make_replica_settings
from personalive.server.cluster.server_thread import ServerThread
from personalive.server.server import Server
from personalive.server.settings import Settings

KEY = "a-key-of-its-own"


@pytest.fixture(scope="module")
def engine() -> Iterator[ServerThread]:
    settings = make_replica_settings({"max_sessions": 3, "log_level": "warning"}, host="127.0.0.1", key=KEY)
    one = ServerThread(settings, partial(Server, id_prefix="r1."))
    one.start()
    yield one
    one.stop(10)
    assert not one.is_alive


def ask(engine: ServerThread, asked: ProxyRequest, key: str = KEY) -> ProxyResponse:
    async def scene() -> ProxyResponse:
        wire = ReplicaClient()
        try:
            return await wire.request(f"http://127.0.0.1:{engine.port}", key, asked)
        finally:
            await wire.close()

    return asyncio.run(scene())


def test_it_answers_as_the_single_server_does(engine: ServerThread) -> None:
    told = ask(engine, ProxyRequest("GET", "/api/v1/sessions"))
    assert told.ok
    assert json.loads(told.body)["max_sessions"] == 3
    body = b'{"sdp": "nothing", "type": "offer"}'
    refused = ask(
        engine,
        ProxyRequest("POST", "/api/v1/webrtc/offer", headers={"Content-Type": "application/json"}, body=body),
    )
    assert refused.status == 409
    assert "No pipeline is loaded" in json.loads(refused.body)["detail"]
    assert get_session_id(refused) is None
    assert ask(engine, ProxyRequest("GET", "/api/v1/models/status", "pipeline_id=preview")).ok
    assert ask(engine, ProxyRequest("GET", "/no%2Fwhere")).status == 404


def test_nobody_gets_in_without_its_key(engine: ServerThread) -> None:
    assert ask(engine, ProxyRequest("GET", "/api/v1/sessions"), key="another").status == 401


def test_nobody_there_is_told_apart_from_a_refusal() -> None:
    async def scene() -> None:
        wire = ReplicaClient()
        try:
            await wire.request("http://127.0.0.1:9", KEY, ProxyRequest("GET", "/"))
        finally:
            await wire.close()

    with pytest.raises(ReplicaUnreachableError):
        asyncio.run(scene())


def test_what_runs_on_its_loop_is_waited_for(engine: ServerThread) -> None:
    engine.submit(engine.wait_ended("r1.none")).result(5)
    engine.submit(engine.wait_empty()).result(5)


def test_the_session_of_an_answer_is_found() -> None:
    assert get_session_id(ProxyResponse(200, {}, b'{"sessionId": "r1.x", "sdp": ""}')) == "r1.x"
    assert get_session_id(ProxyResponse(201, {"X-Session-Id": "r1.y"}, b"v=0")) == "r1.y"
    assert get_session_id(ProxyResponse(503, {}, b'{"sessionId": "r1.x"}')) is None
    assert get_session_id(ProxyResponse(200, {}, b"[]")) is None


def test_a_host_s_own_variables_weigh_more_there(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"public_ip": "203.0.113.1", "pipeline": "preview", "cors_origins": ("https://a.example",)}
    assert make_replica_settings(given, host="10.0.0.1", key=KEY).public_ip == "203.0.113.1"
    monkeypatch.setenv("PERSONALIVE_PUBLIC_IP", "203.0.113.9")
    monkeypatch.setenv("PERSONALIVE_REFERENCE", "portrait.jpg")
    here = make_replica_settings(given, host="10.0.0.1", key=KEY)
    assert here.public_ip == "203.0.113.9"
    assert (here.pipeline, here.reference, here.cors_origins) == (None, None, ())
    assert isinstance(here, Settings)
