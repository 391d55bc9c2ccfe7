"""Liveness and readiness of the service, its metrics, and its replicas."""

from __future__ import annotations

from fastapi import APIRouter, Response
from pydantic import BaseModel

from personalive.server.cluster import aggregate
from personalive.server.cluster.dependencies import DependenciesDep, ProxyRequestDep, make_response
from personalive.server.cluster.replica_set import NoReplicaError
from personalive.server.routes.health import live_router
from personalive.server.telemetry.metrics import CONTENT_TYPE

router = APIRouter()
router.include_router(live_router)


class ReplicaList(BaseModel):
    """Every replica, and the sums of their sessions and slots."""

    replicas: list[aggregate.ReplicaInfo]
    sessions: int
    slots: int


@router.get("/health/ready")
async def ready(proxy_request: ProxyRequestDep, deps: DependenciesDep) -> Response:
    """Answer 200 if a replica's pipeline and worker are ready and the start's portrait is added, else 503."""
    await deps.require_reference()
    said = await deps.replicas.request_all(proxy_request)
    if not said:
        raise NoReplicaError
    return make_response(min((each.response for each in said), key=lambda answer: answer.status))


@router.get("/metrics")
async def metrics(proxy_request: ProxyRequestDep, deps: DependenciesDep) -> Response:
    """Return every replica's metrics, labelled with the replica's id."""
    members = await deps.replicas.list_replicas()
    said = await deps.replicas.request_each(members, proxy_request)
    return Response(aggregate.merge_metrics(said, members), media_type=CONTENT_TYPE)


@router.get("/api/v1/cluster")
async def cluster(deps: DependenciesDep) -> ReplicaList:
    """List the replicas with their machines, sessions and slots."""
    members = await deps.replicas.list_replicas()
    return ReplicaList(
        replicas=[aggregate.make_replica_info(member) for member in members],
        sessions=sum(member.sessions for member in members),
        slots=sum(member.slots for member in members),
    )
