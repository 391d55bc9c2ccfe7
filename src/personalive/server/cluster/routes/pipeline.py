"""One pipeline for all replicas: one replica checks the request, and then the controller passes it to all."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response

from personalive.server.cluster import aggregate
from personalive.server.cluster.dependencies import DependenciesDep, ProxyRequestDep, make_response
from personalive.server.cluster.messages import ReplicaStatus
from personalive.server.cluster.replica_client import ProxyRequest, ProxyResponse
from personalive.server.cluster.replica_set import ReplicaSet
from personalive.server.routes.pipeline import LoadRequest, UnloadRequest

router = APIRouter(prefix="/api/v1/pipeline")


@router.post("/load")
async def load_pipeline(
    request: LoadRequest, proxy_request: ProxyRequestDep, deps: DependenciesDep
) -> Response:
    """Load a pipeline on every replica, and on those that start later."""
    answer = await _request_busiest(deps.replicas, proxy_request)
    if answer.ok:
        await deps.controller.set_desired.remote(request.pipeline_id, request.load_params or {})
    return make_response(answer)


@router.post("/unload")
async def unload_pipeline(
    proxy_request: ProxyRequestDep, deps: DependenciesDep, request: UnloadRequest | None = None
) -> Response:
    """Close the pipeline on every replica."""
    del request  # validated here, so that all replicas get a valid request
    answer = await _request_busiest(deps.replicas, proxy_request)
    if answer.ok:
        nothing: dict[str, Any] = {}
        await deps.controller.set_desired.remote(None, nothing)
    return make_response(answer)


@router.get("/status")
async def get_pipeline_status(
    proxy_request: ProxyRequestDep, deps: DependenciesDep
) -> aggregate.ClusterStatus:
    """Return what is loaded, how far loading is, or why it failed, for the cluster and for each replica."""
    wanted = await deps.controller.get_desired.remote()
    return aggregate.merge_status(await deps.replicas.request_all(proxy_request), wanted)


async def _request_busiest(replicas: ReplicaSet, proxy_request: ProxyRequest) -> ProxyResponse:
    """Return the answer of the replica with most sessions: what it accepts, the others accept too.

    Raises `NoReplicaError`.
    """
    members = sorted(await replicas.list_replicas(), key=_session_count_key, reverse=True)
    return await replicas.request_first(members, proxy_request)


def _session_count_key(replica: ReplicaStatus) -> tuple[int, bool]:
    return replica.sessions, replica.stage == "serving"
