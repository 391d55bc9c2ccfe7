from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from personalive.server.routes import models, pipeline
from personalive.server.server import Server
from tests.server.parts import SMALL, client_of, ended, running

LOAD = "/api/v1/pipeline/load"


def with_client(test: Callable[[httpx.AsyncClient, Server], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        async with running() as server, client_of(server, [pipeline.router, models.router]) as client:
            await test(client, server)

    asyncio.run(run())


def test_load_poll_and_unload() -> None:
    async def test(client: httpx.AsyncClient, server: Server) -> None:
        assert (await client.get("/api/v1/pipeline/status")).json()["status"] == "not_loaded"
        answer = await client.post(LOAD, json={"pipeline_id": "preview", "load_params": SMALL})
        assert answer.status_code == 200
        assert answer.json().keys() == {"message"}
        await ended(server.pipelines)
        status = (await client.get("/api/v1/pipeline/status")).json()
        assert status == {
            "status": "loaded",
            "pipeline_id": "preview",
            "load_params": {**SMALL, "seed": 42},
            "stage": None,
            "progress": 1.0,
            "error": None,
            "warnings": [],
            "notes": [],
        }
        for body in (None, {"force": True}):
            assert (await client.post("/api/v1/pipeline/unload", json=body)).status_code == 200
        assert (await client.get("/api/v1/pipeline/status")).json()["status"] == "not_loaded"

    with_client(test)


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"pipeline_id": "nobody"}, 404, "There is no pipeline 'nobody'"),
        ({"pipeline_id": "nobody\x00/../"}, 404, "There is no pipeline"),
        ({"pipeline_id": "preview", "load_params": {"height": 9}}, 422, "height = 9"),
        ({"pipeline_id": "preview", "load_params": None, "more": 1}, 422, "more"),
        ({"pipeline_id": 3}, 422, "pipeline_id"),
        ({"pipeline_id": "preview", "force": "yes"}, 422, "force"),
        ({}, 422, "pipeline_id"),
        ({"pipeline_id": "personalive"}, 409, "personalive download"),
        ({"pipeline_id": "missing"}, 409, "Run `download_models --pipeline missing`."),
    ],
)
def test_refusals(plugins: None, body: object, status: int, words: str) -> None:
    async def test(client: httpx.AsyncClient, server: Server) -> None:
        answer = await client.post(LOAD, json=body)
        assert answer.status_code == status
        assert words in str(answer.json()["detail"])
        assert server.pipelines.get_status().status == "not_loaded"

    with_client(test)


@pytest.mark.parametrize(
    "body",
    [
        b'{"pipeline_id": "preview", "load_params": {"seed": 1e400}}',
        b'{"pipeline_id": "preview", "load_params": {"seed": NaN}}',
        b'{"pipeline_id": "preview", "load_params": {"seed": -Infinity}}',
        b'{"pipeline_id": "preview", "load_params": {"seed": ' + b"9" * 5000 + b"}}",
        b'{"pipeline_id": "preview", "load_params": {"height": ' + b"[" * 900 + b"]" * 900 + b"}}",
        b'{"pipeline_id": "preview", "load_params": {"a": ' + b"[" * 90_000 + b"]" * 90_000 + b"}}",
        b'{"pipeline_id": "\\ud800"}',
        b'{"pipeline_id": "preview", "load_params": {"\\udfff": 1}}',
        b'{"pipeline_id": "preview", "load_params": {"height": "\\ud800"}}',
        b"\xff\xfe",
        b"[]",
        b"",
        b"null",
    ],
)
def test_hostile_bodies_are_refused(body: bytes) -> None:
    async def test(client: httpx.AsyncClient, server: Server) -> None:
        answer = await client.post(LOAD, content=body, headers={"content-type": "application/json"})
        assert answer.status_code in {400, 422}, answer.text
        assert "detail" in answer.json()

    with_client(test)


def test_any_parameters_are_taken_or_refused(plugins: None) -> None:
    values = st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
        max_leaves=4,
    )
    names = st.sampled_from(["height", "width", "seed", "weights", "device", "latency", "max_keyframes"])

    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        server = runner.run(stack.enter_async_context(running()))
        client = runner.run(stack.enter_async_context(client_of(server, [pipeline.router])))

        @settings(max_examples=60)
        @given(
            name=st.sampled_from(["personalive", "missing", "broken"]) | st.text(max_size=20),
            parameters=st.dictionaries(names | st.text(max_size=9), values, max_size=3),
        )
        def once(name: str, parameters: dict[str, Any]) -> None:
            body = {"pipeline_id": name, "load_params": parameters}
            answer = runner.run(client.post(LOAD, json=body))
            assert answer.status_code in {404, 409, 422}, answer.text

        try:
            once()
        finally:
            runner.run(stack.aclose())


def test_schemas_tell_all_there_is(plugins: None) -> None:
    async def test(client: httpx.AsyncClient, server: Server) -> None:
        answer = await client.get("/api/v1/pipelines/schemas")
        assert answer.status_code == 200
        found = answer.json()["pipelines"]
        assert {"personalive", "preview", "echo", "missing", "broken", "function"} <= set(found)
        assert found["preview"]["ready"]
        assert found["preview"]["load_parameters"]["properties"]["height"]["default"] == 512
        assert found["preview"]["run_parameters"]["properties"]["expression"]["maximum"] == 2.0
        assert not found["personalive"]["ready"]
        assert "personalive download" in found["personalive"]["remedy"]
        assert found["personalive"]["generative"]
        assert not found["missing"]["ready"]
        assert "cannot be imported" in found["broken"]["reason"]

    with_client(test)


def test_models(plugins: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERSONALIVE_HOME", str(tmp_path))

    async def test(client: httpx.AsyncClient, server: Server) -> None:
        async def status(pipeline_id: str) -> httpx.Response:
            return await client.get("/api/v1/models/status", params={"pipeline_id": pipeline_id})

        body = (await status("preview")).json()
        assert body == {
            "pipeline_id": "preview",
            "downloaded": True,
            "missing": [],
            "progress": None,
            "error": None,
        }
        body = (await status("personalive")).json()
        assert not body["downloaded"]
        # Without the base UNet, which is fetched only if the others leave entries open.
        assert len(body["missing"]) == 10
        assert (await status("nobody")).status_code == 404
        assert (await status("broken")).status_code == 409
        assert (await client.get("/api/v1/models/status")).status_code == 422

        async def download(body: object) -> int:
            return (await client.post("/api/v1/models/download", json=body)).status_code

        assert await download({"pipeline_id": "preview"}) == 200
        assert await download({"pipeline_id": "nobody"}) == 404
        assert await download({"pipeline_id": "missing"}) == 409
        assert await download({"pipeline_id": "preview", "where": "/"}) == 422

    with_client(test)
