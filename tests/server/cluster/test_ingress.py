"""The ingress's application without a cluster behind it: its guards, and which route takes what."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from fastapi.routing import APIRoute
from starlette.routing import Match

from personalive.server.app import create_app
from personalive.server.cluster.dependencies import IngressDependencies
from personalive.server.cluster.ingress import ROUTE_MODULES, create_ingress
from personalive.server.settings import Settings

pytestmark = pytest.mark.filterwarnings("default")


def nothing() -> IngressDependencies:
    raise AssertionError("what is refused or static is nobody's to ask")


def status(settings: Settings, path: str, **headers: str) -> int:
    async def scene() -> int:
        app = create_ingress(settings, nothing)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
            return (await client.get(path, headers=headers)).status_code

    return asyncio.run(scene())


@pytest.mark.slow
def test_its_guards_are_the_server_s() -> None:
    assert status(Settings(), "/") == 200
    assert status(Settings(), "/", host="evil.example.com") == 403
    assert status(Settings(), "/api/v1/sessions", origin="https://evil.example.com") == 403
    keyed = Settings(host="0.0.0.0", api_key="a-key")
    assert status(keyed, "/api/v1/sessions") == 401
    assert status(keyed, "/", host="any.example.com") == 200


def test_what_names_a_session_or_a_recording_is_not_left_to_any_replica() -> None:
    routes = [route for part in ROUTE_MODULES for route in part.router.routes if isinstance(route, APIRoute)]
    assert routes[-1].path == "/{path:path}"
    told = create_app(Settings()).openapi()["paths"]
    own = [
        (path, method.upper())
        for path in told
        if "{" in path and "pipelines" not in path
        for method in told[path]
    ]
    assert ("/api/v1/sessions/{session_id}/recording", "POST") in own
    for path, method in own:
        scope = {"type": "http", "path": path.replace("{", "").replace("}", ""), "method": method}
        taken = next(route for route in routes if route.matches(scope)[0] == Match.FULL)
        assert taken is not routes[-1], (method, path)
