"""Whether the service lives, and whether it can serve; its figures; its replicas."""

from __future__ import annotations

from datetime import UTC, datetime

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from personalive.server.cluster import aggregate
from personalive.server.cluster.dependencies import AskedDep, PartsDep, passed_on
from personalive.server.cluster.replica_set import NoReplicaError
from personalive.server.routes.health import Health
from personalive.server.telemetry.metrics import CONTENT_TYPE

router = APIRouter()


class Replicas(BaseModel):
    """Every replica, and their slots together."""

    replicas: list[aggregate.ReplicaInfo]
    sessions: int
    slots: int


@router.get("/health")
@router.get("/health/live", operation_id="live_health")
async def health(request: Request) -> Health:
    """The ingress is up; says nothing about replicas."""
    return Health(timestamp=datetime.now(UTC), version=request.app.version)


@router.get("/health/ready")
async def ready(asked: AskedDep, parts: PartsDep) -> Response:
    """A replica has a pipeline, its worker answers, and the start's portrait is taken; else 503 with a reason."""
    await parts.require_reference()
    said = await parts.fleet.ask_all(asked)
    if not said:
        raise NoReplicaError
    return passed_on(min((each.answer for each in said), key=lambda answer: answer.status))


@router.get("/metrics")
async def metrics(asked: AskedDep, parts: PartsDep) -> Response:
    """Every replica's figures, each under the replica's name."""
    members = await parts.fleet.members()
    said = await parts.fleet.ask_these(members, asked)
    return Response(aggregate.metrics(said, members), media_type=CONTENT_TYPE)


@router.get("/api/v1/cluster")
async def cluster(parts: PartsDep) -> Replicas:
    """Which replicas there are, where, and how full."""
    members = await parts.fleet.members()
    return Replicas(
        replicas=[aggregate.replica_info(member) for member in members],
        sessions=sum(member.sessions for member in members),
        slots=sum(member.slots for member in members),
    )
