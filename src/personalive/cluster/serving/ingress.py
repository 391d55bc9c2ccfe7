"""The cluster's web application: the single server's contract and guards, answered by the replicas together."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI

import personalive
from personalive.cluster.serving.parts import Parts
from personalive.cluster.serving.routes import health, pipeline, reference, rest, sessions
from personalive.serving import answers, guards
from personalive.serving.app import create_app
from personalive.serving.page import assets as page_files
from personalive.serving.routes import page
from personalive.serving.settings import Settings

PARTS = (health, pipeline, reference, sessions, page, rest)
"""The last one takes whatever the others do not."""


def create_ingress(settings: Settings, make: Callable[[], Parts]) -> FastAPI:
    """The application. Its lifespan makes its `Parts`, in `app.state.parts`, on the event loop that uses them."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.parts = make()
        try:
            yield
        finally:
            await app.state.parts.wire.close()

    app = FastAPI(
        title="PersonaLive",
        version=personalive.__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        responses=answers.ANYWHERE,
    )
    answers.install(app)
    guards.install(app, settings)
    for part in PARTS:
        app.include_router(part.router)
    contract = create_app(settings).openapi()
    app.openapi = lambda: contract  # type: ignore[method-assign]
    page_files()
    return app
