"""Health checks: whether the process is up, and whether it can serve sessions."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel

from personalive.server.dependencies import ServerDep
from personalive.server.errors import ServiceUnavailableError, error_responses

router = APIRouter(tags=["health"])
live_router = APIRouter()
"""The routes that every process can answer."""

_RESPONSE_TIMEOUT_S = 2.0
_RETRY_S = 5


class Health(BaseModel):
    """The answer of a process that is up."""

    status: Literal["healthy"] = "healthy"
    timestamp: datetime
    version: str


class Ready(BaseModel):
    """The answer of a server on which sessions can be opened."""

    status: Literal["ready"] = "ready"
    pipeline_id: str


@live_router.get("/health")
@live_router.get("/health/live", operation_id="live_health")
async def health(request: Request) -> Health:
    """Report that the process is up. This says nothing about pipelines."""
    return Health(timestamp=datetime.now(UTC), version=request.app.version)


router.include_router(live_router)


@router.get("/health/ready", responses=error_responses(503))
async def ready(server: ServerDep) -> Ready:
    """Report that a pipeline is loaded, its worker answers and the set portrait is ready; else 503 and why."""
    if server.draining:
        raise ServiceUnavailableError("The server is stopping.", retry_after=_RETRY_S)
    status = server.pipelines.get_status()
    pipeline = server.pipelines.pipeline
    if pipeline is None:
        raise ServiceUnavailableError(_explain_not_ready(status.status, status.error), retry_after=_RETRY_S)
    references = server.references
    if (
        references.default_id is None
        and (why := references.pending_message or references.default_error) is not None
    ):
        raise ServiceUnavailableError(why, retry_after=_RETRY_S)
    if not await server.pipelines.is_responsive(_RESPONSE_TIMEOUT_S):
        raise ServiceUnavailableError("The worker does not answer.", retry_after=_RETRY_S)
    return Ready(pipeline_id=pipeline.info.id)


def _explain_not_ready(status: str, error: str | None) -> str:
    if status == "loading":
        return "The pipeline is being loaded."
    return error or "No pipeline is loaded: POST /api/v1/pipeline/load."
