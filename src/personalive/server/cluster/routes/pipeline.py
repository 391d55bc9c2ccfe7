"""One pipeline for all replicas: one of them says whether it can be, and then all are told."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response

from personalive.server.cluster import aggregate
from personalive.server.cluster.dependencies import AskedDep, PartsDep, passed_on
from personalive.server.cluster.messages import Member
from personalive.server.cluster.replica_client import Answered, Asked, UnreachableError
from personalive.server.cluster.replica_set import Fleet, NoReplicaError
from personalive.server.routes.pipeline import LoadRequest, UnloadRequest

router = APIRouter(prefix="/api/v1/pipeline")


@router.post("/load")
async def load(request: LoadRequest, asked: AskedDep, parts: PartsDep) -> Response:
    """Load a pipeline on every replica, and on those that start later."""
    answer = await _first(parts.fleet, asked)
    if answer.ok:
        await parts.ledger.want.remote(request.pipeline_id, request.load_params or {})
    return passed_on(answer)


@router.post("/unload")
async def unload(asked: AskedDep, parts: PartsDep, request: UnloadRequest | None = None) -> Response:
    """Close the pipeline on every replica."""
    del request  # checked here, so that all of them get one that is right
    answer = await _first(parts.fleet, asked)
    if answer.ok:
        nothing: dict[str, Any] = {}
        await parts.ledger.want.remote(None, nothing)
    return passed_on(answer)


@router.get("/status")
async def status(asked: AskedDep, parts: PartsDep) -> aggregate.ClusterStatus:
    """What is loaded, how far the loading is, or why it failed: of all, and of each."""
    wanted = await parts.ledger.wanted.remote()
    return aggregate.status(await parts.fleet.ask_all(asked), wanted)


async def _first(fleet: Fleet, asked: Asked) -> Answered:
    """What the replica says that has most sessions: if it may be, it may be on the others too."""
    for member in sorted(await fleet.members(), key=_weight, reverse=True):
        try:
            return await fleet.ask(member, asked)
        except UnreachableError:
            continue
    raise NoReplicaError


def _weight(member: Member) -> tuple[int, bool]:
    return member.sessions, member.stage == "serving"
