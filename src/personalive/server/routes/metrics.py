"""Metrics for Prometheus."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response

from personalive.server.dependencies import ServerDep
from personalive.server.telemetry.metrics import CONTENT_TYPE

router = APIRouter(tags=["health"])

_TEXT_RESPONSE: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "The metrics"}
}


@router.get("/metrics", response_class=Response, responses=_TEXT_RESPONSE)
async def metrics(server: ServerDep) -> Response:
    """Return all counters, gauges and histograms in Prometheus's text format."""
    return Response(server.metrics.render(), media_type=CONTENT_TYPE)
