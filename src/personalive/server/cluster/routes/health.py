"""Whether the service lives, and whether it can serve; its figures; its replicas."""

from __future__ import annotations

from datetime import UTC, datetime

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from personalive.server.cluster import aggregate
from personalive.server.cluster.dependencies import DependenciesDep, ProxyRequestDep, make_response
from personalive.server.cluster.replica_set import NoReplicaError
from personalive.server.routes.health import Health
from personalive.server.telemetry.metrics import CONTENT_TYPE

router = APIRouter()


class ReplicaList(BaseModel):
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
async def ready(proxy_request: ProxyRequestDep, deps: DependenciesDep) -> Response:
    """A replica has a pipeline, its worker answers, and the start's portrait is taken; else 503 with a reason."""
    await deps.require_reference()
    said = await deps.replicas.request_all(proxy_request)
    if not said:
        raise NoReplicaError
    return make_response(min((each.response for each in said), key=lambda answer: answer.status))


@router.get("/metrics")
async def metrics(proxy_request: ProxyRequestDep, deps: DependenciesDep) -> Response:
    """Every replica's figures, each under the replica's name."""
    members = await deps.replicas.list_replicas()
    said = await deps.replicas.request_each(members, proxy_request)
    return Response(aggregate.merge_metrics(said, members), media_type=CONTENT_TYPE)


@router.get("/api/v1/cluster")
async def cluster(deps: DependenciesDep) -> ReplicaList:
    """Which replicas there are, where, and how full."""
    members = await deps.replicas.list_replicas()
    return ReplicaList(
        replicas=[aggregate.make_replica_info(member) for member in members],
        sessions=sum(member.sessions for member in members),
        slots=sum(member.slots for member in members),
    )
