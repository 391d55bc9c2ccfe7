"""The cluster's web application: the single server's API and middleware, with answers from the replicas."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI

from personalive.server.app import create_app, make_fastapi
from personalive.server.cluster.dependencies import IngressDependencies
from personalive.server.cluster.routes import health, pipeline, proxy, reference, sessions, websocket
from personalive.server.routes import page
from personalive.server.settings import Settings

ROUTE_MODULES = (health, pipeline, reference, sessions, websocket, page, proxy)
"""The last module takes every path that the others do not."""


def create_ingress(settings: Settings, make_dependencies: Callable[[], IngressDependencies]) -> FastAPI:
    """Return the application.

    Its lifespan makes the `IngressDependencies`, as `app.state.parts`, on the event loop that uses them.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.parts = make_dependencies()
        try:
            yield
        finally:
            await app.state.parts.client.close()

    app = make_fastapi(settings, lifespan, [part.router for part in ROUTE_MODULES])
    contract = create_app(settings).openapi()
    app.openapi = lambda: contract  # type: ignore[method-assign]
    return app
