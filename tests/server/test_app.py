from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.routing import Mount

from personalive.server.app import create_app
from personalive.server.settings import Settings
from tests.server.asgi import Answered, ask
from tests.server.client import PORTRAIT

ROOT = Path(__file__).parents[2]

KEY = "the-key-of-this-server"
FIXED = [
    ("get", "/health"),
    ("get", "/health/live"),
    ("get", "/health/ready"),
    ("post", "/api/v1/pipeline/load"),
    ("get", "/api/v1/pipeline/status"),
    ("get", "/api/v1/pipelines/schemas"),
    ("get", "/api/v1/models/status"),
    ("post", "/api/v1/models/download"),
    ("post", "/api/v1/personalive/reference"),
    ("get", "/api/v1/webrtc/ice-servers"),
    ("post", "/api/v1/webrtc/offer"),
    ("patch", "/api/v1/webrtc/offer/{session_id}"),
    ("delete", "/api/v1/webrtc/offer/{session_id}"),
    ("get", "/api/v1/sessions"),
    ("get", "/api/v1/hardware/info"),
    ("get", "/metrics"),
]


@asynccontextmanager
async def serving(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client,
    ):
        yield client


def with_client(
    test: Callable[[httpx.AsyncClient, FastAPI], Coroutine[Any, Any, None]], settings: Settings
) -> None:
    async def run() -> None:
        app = create_app(settings)
        async with serving(app) as client:
            await test(client, app)

    asyncio.run(run())


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(recordings_dir=tmp_path)


def operations(app: FastAPI) -> list[tuple[str, str]]:
    return [(method, path) for path, methods in app.openapi()["paths"].items() for method in methods]


def test_every_route_of_the_contract_is_there(settings: Settings) -> None:
    found = operations(create_app(settings))
    for operation in FIXED:
        assert operation in found


def test_every_operation_documents_what_any_may_answer(settings: Settings) -> None:
    app = create_app(settings)
    paths = app.openapi()["paths"]
    for method, path in operations(app):
        assert {"401", "403", "413", "422"} <= set(paths[path][method]["responses"])
    ids = [paths[path][method]["operationId"] for method, path in operations(app)]
    assert len(ids) == len(set(ids))


def test_health(settings: Settings) -> None:
    async def test(client: httpx.AsyncClient, app: FastAPI) -> None:
        for path in ("/health", "/health/live"):
            told = (await client.get(path)).json()
            assert told["status"] == "healthy"
            assert told["version"] == app.version
            assert "T" in told["timestamp"]
        answer = await client.get("/health/ready")
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
        assert "No pipeline is loaded" in answer.json()["detail"]

    with_client(test, settings)


def test_ready_once_a_pipeline_is_loaded_until_it_is_to_stop(tmp_path: Path) -> None:
    async def test(client: httpx.AsyncClient, app: FastAPI) -> None:
        for _ in range(600):
            if (await client.get("/api/v1/pipeline/status")).json()["status"] == "loaded":
                break
            await asyncio.sleep(0.05)
        assert (await client.get("/health/ready")).json() == {"status": "ready", "pipeline_id": "preview"}
        app.state.server.draining = True
        answer = await client.get("/health/ready")
        assert (answer.status_code, answer.json()["detail"]) == (503, "The server is stopping.")

    with_client(test, Settings(recordings_dir=tmp_path, pipeline="preview"))


@pytest.mark.slow
def test_ready_not_before_the_portrait_of_the_start_is_fused(tmp_path: Path) -> None:
    async def test(client: httpx.AsyncClient, app: FastAPI) -> None:
        references = app.state.server.references
        said = set()
        while (answer := await client.get("/health/ready")).status_code == 503:
            said.add(answer.json()["detail"])
            await asyncio.sleep(0.002)
        assert references.default_id is not None
        assert "The portrait that the server was started with is being prepared." in said

    with_client(test, Settings(recordings_dir=tmp_path, pipeline="preview", reference=PORTRAIT))


def test_the_page_and_its_files_are_served(settings: Settings) -> None:
    async def test(client: httpx.AsyncClient, app: FastAPI) -> None:
        answer = await client.get("/")
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert app.version in answer.text
        style = await client.get("/assets/css/base.css")
        assert style.headers["content-type"] == "text/css; charset=utf-8"
        again = await client.get("/assets/css/base.css", headers={"if-none-match": style.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert (await client.head("/")).status_code == 200
        for path in ("/stage", "/docs"):
            other = await client.get(path)
            assert (other.status_code, other.headers["content-type"]) == (200, "text/html; charset=utf-8")

    with_client(test, settings)


def test_behind_a_path_it_is_not_found_and_the_documentation_says_so(settings: Settings) -> None:
    async def test(client: httpx.AsyncClient, app: FastAPI) -> None:
        del client
        proxy = Starlette(routes=[Mount("/live", app)])
        transport = httpx.ASGITransport(proxy)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as behind:
            page = await behind.get("/live/")
            assert page.status_code == 200
            named = re.findall(r'(?:src|href)="(/[^"#]+)', page.text)
            assert {(await behind.get(name)).status_code for name in named} == {404}

    with_client(test, settings)
    told = (ROOT / "docs/how-to/https-and-turn.md").read_text(encoding="utf-8")
    assert "A path prefix is not supported." in " ".join(told.split())


@pytest.mark.parametrize(
    "path",
    [
        "/assets/",
        "/assets",
        "/assets/nonesuch.css",
        "/assets/../settings.py",
        "/assets/../../settings.py",
        "/assets/../../../../../../../../etc/passwd",
        "/assets/..\\settings.py",
        "/assets/%2e%2e/settings.py",
        "/assets/%2e%2e%2fsettings.py",
        "/assets//etc/passwd",
        "/assets//index.html",
        "/assets/./index.html",
        "/assets/css/base.css\x00.html",
        "//etc/passwd",
        "/../etc/passwd",
        "/etc/passwd",
        "/index.html",
        "/settings.py",
    ],
)
def test_nothing_but_the_pages_files_is_served(settings: Settings, path: str) -> None:
    """As the path arrives after decoding, and as it would if that were done twice."""

    async def test(client: httpx.AsyncClient, app: FastAPI) -> None:
        answered: Answered = await ask(app, "GET", path)
        assert (answered.status, answered.headers["content-type"]) == (404, "application/json")

    with_client(test, settings)


def test_every_route_but_the_public_ones_wants_the_key(tmp_path: Path) -> None:
    settings = Settings(recordings_dir=tmp_path, api_key=SecretStr(KEY))
    public = {"/health", "/health/live", "/health/ready"}

    async def test(client: httpx.AsyncClient, app: FastAPI) -> None:
        everything = [*operations(app), ("get", "/openapi.json"), ("get", "/nonesuch")]
        for method, path in everything:
            answer = await client.request(method, path)
            assert (answer.status_code != 401) == (path in public), (method, path)
        for path in ("/", "/stage", "/docs"):
            assert (await client.get(path)).status_code == 200
        assert (await client.get("/assets/css/base.css")).status_code == 200
        client.headers["authorization"] = f"Bearer {KEY}"
        assert (await client.get("/openapi.json")).status_code == 200
        assert (await client.get("/api/v1/sessions")).status_code == 200

    with_client(test, settings)


def test_metrics_can_be_parsed(settings: Settings) -> None:
    async def test(client: httpx.AsyncClient, app: FastAPI) -> None:
        del app
        answer = await client.get("/metrics")
        assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        names = {family.name for family in text_string_to_metric_families(answer.text)}
        assert {"personalive_sessions", "personalive_latency_seconds", "personalive_errors"} <= names

    with_client(test, settings)


def test_hardware(settings: Settings) -> None:
    async def test(client: httpx.AsyncClient, app: FastAPI) -> None:
        del app
        told = (await client.get("/api/v1/hardware/info")).json()
        assert {"vram_gb", "device", "gpu_name", "cpu_count", "memory_gb", "torch"} <= set(told)

    with_client(test, settings)


def test_it_is_stopped_once_however_many_ask(settings: Settings) -> None:
    async def test(client: httpx.AsyncClient, app: FastAPI) -> None:
        del client
        lifetime = app.state.lifetime
        await asyncio.gather(lifetime.stop(), lifetime.stop())
        assert lifetime.server.draining
        assert not lifetime.server.workers[0].is_alive

    with_client(test, settings)
