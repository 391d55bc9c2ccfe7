"""The web application: all routes, their middleware, and the server that lives as long as the application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from fastapi import APIRouter, FastAPI

import personalive
from personalive.server import errors, middleware
from personalive.server.routes import (
    hardware,
    health,
    metrics,
    models,
    page,
    picture,
    pipeline,
    recordings,
    reference,
    sessions,
    webrtc,
    websocket,
    whip,
)
from personalive.server.server import Server
from personalive.server.settings import Settings
from personalive.server.static_files import load_assets as page_files

_DESCRIPTION = """Animate a portrait with the expressions and head motion of a live video.

Load a pipeline, post a portrait, open a session by WebRTC, or by a WebSocket where UDP does not get through: see
`/api/v1/pipeline/load`, `/api/v1/personalive/reference`, `/api/v1/webrtc/offer` and
`/api/v1/websocket/offer`. Errors are `{"detail": …}`."""

_ROUTERS = tuple(
    part.router
    for part in (
        health,
        pipeline,
        models,
        reference,
        webrtc,
        websocket,
        whip,
        sessions,
        recordings,
        picture,
        hardware,
        metrics,
        page,
    )
)


class ServerLifecycle:
    """A server that is stopped only once, however often `stop` is called."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._stop_task: asyncio.Task[None] | None = None

    async def stop(self) -> None:
        """Stop the server, and return when it has stopped."""
        if self._stop_task is None:
            self.server.draining = True
            self._stop_task = asyncio.create_task(self.server.stop(), name="stop-server")
        await asyncio.shield(self._stop_task)


def create_app(settings: Settings, make_server: Callable[[Settings], Server] = Server) -> FastAPI:
    """Return the application. Its lifespan makes and starts the `Server` in `app.state.server`, and stops it."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        server = make_server(settings)
        lifetime = ServerLifecycle(server)
        app.state.server, app.state.lifetime = server, lifetime
        try:
            await server.start()
            yield
        finally:
            await lifetime.stop()

    app = make_fastapi(
        settings, lifespan, _ROUTERS, lambda: app.state.server.metrics.errors.labels("http").inc()
    )
    # Made now, since it takes a tenth of a second, during which no frame could be sent.
    app.openapi()
    return app


def make_fastapi(
    settings: Settings,
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]],
    routers: Iterable[APIRouter],
    on_error: Callable[[], None] | None = None,
) -> FastAPI:
    """Return an application with these routes, and with the errors' form and the middleware of the API.

    `on_error` is called for internal errors.
    """
    app = FastAPI(
        title="PersonaLive",
        version=personalive.__version__,
        description=_DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,  # FastAPI's page fetches its viewer from a CDN; routes/page.py serves a packaged one
        redoc_url=None,
        redirect_slashes=False,
        responses=errors.COMMON_RESPONSES,
    )
    errors.install_error_handlers(app, on_error)
    middleware.install_middleware(app, settings)
    for router in routers:
        app.include_router(router)
    page_files()
    return app
