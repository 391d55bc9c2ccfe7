"""Whether the server lives, and whether it can serve."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel

from personalive.server.dependencies import ServerDep
from personalive.server.errors import BusyError, errors

router = APIRouter(tags=["health"])

_PATIENCE_S = 2.0
_RETRY_S = 5


class Health(BaseModel):
    """The process answers."""

    status: Literal["healthy"] = "healthy"
    timestamp: datetime
    version: str


class Ready(BaseModel):
    """Sessions can be opened."""

    status: Literal["ready"] = "ready"
    pipeline_id: str


@router.get("/health")
@router.get("/health/live", operation_id="live_health")
async def health(request: Request) -> Health:
    """The process is up; says nothing about pipelines."""
    return Health(timestamp=datetime.now(UTC), version=request.app.version)


@router.get("/health/ready", responses=errors(503))
async def ready(server: ServerDep) -> Ready:
    """A pipeline is loaded, its worker answers, and the settings' portrait is prepared; else 503 and why."""
    if server.draining:
        raise BusyError("The server is stopping.", retry_after=_RETRY_S)
    status = server.host.status()
    pipeline = server.host.pipeline
    if pipeline is None:
        raise BusyError(_why_not(status.status, status.error), retry_after=_RETRY_S)
    references = server.references
    if references.default_id is None and (why := references.awaited or references.refused) is not None:
        raise BusyError(why, retry_after=_RETRY_S)
    if not await server.host.answers(_PATIENCE_S):
        raise BusyError("The worker does not answer.", retry_after=_RETRY_S)
    return Ready(pipeline_id=pipeline.info.id)


def _why_not(status: str, error: str | None) -> str:
    if status == "loading":
        return "The pipeline is being loaded."
    return error or "No pipeline is loaded: POST /api/v1/pipeline/load."
