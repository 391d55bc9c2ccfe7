"""References of the whole cluster: one replica validates a picture, and the controller keeps it for all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

from fastapi import APIRouter, Response

from personalive.server.cluster.dependencies import (
    DependenciesDep,
    IngressDependencies,
    ProxyRequestDep,
    make_response,
)
from personalive.server.cluster.messages import StoredClusterReference
from personalive.server.cluster.replica_client import ProxyRequest, ProxyResponse, ReplicaUnreachableError
from personalive.server.cluster.replica_set import NoReplicaError
from personalive.server.routes.reference import ReferenceInfo, ReferenceList
from personalive.server.state.reference_store import UnknownReferenceError

router = APIRouter(prefix="/api/v1/personalive/reference")

_UNKNOWN_MESSAGE = "There is no such reference; it may have been forgotten."
_TRUE_VALUES = frozenset({"true", "1", "on", "yes", "t", "y"})


@router.post("")
async def add_reference(proxy_request: ProxyRequestDep, deps: DependenciesDep) -> Response:
    """Add the picture in the body, which becomes the default reference."""
    for member in await deps.replicas.list_replicas():
        try:
            answer = await deps.replicas.request(member, proxy_request)
            if answer.ok:
                id = str(json.loads(answer.body)["reference_id"])
                one = ProxyRequest("GET", f"{router.prefix}/{id}")
                small = ProxyRequest("GET", f"{router.prefix}/{id}/thumbnail")
                info, thumbnail = (
                    await deps.replicas.request(member, one),
                    await deps.replicas.request(member, small),
                )
                await deps.controller.add_reference.remote(
                    _make_stored_reference(id, proxy_request, info, thumbnail)
                )
        except ReplicaUnreachableError:  # it is gone, but still listed
            continue
        return make_response(answer)
    raise NoReplicaError


@router.get("")
async def list_references(deps: DependenciesDep) -> ReferenceList:
    """List all references that are kept."""
    kept: list[StoredClusterReference] = await deps.controller.list_references.remote()
    infos = [ReferenceInfo.model_validate(each.info) for each in kept]
    return ReferenceList(
        references=infos, default=next((each.reference_id for each in infos if each.default), None)
    )


@router.get("/{reference_id}")
async def get_reference(reference_id: str, deps: DependenciesDep) -> ReferenceInfo:
    """Return one reference."""
    return ReferenceInfo.model_validate((await _require_reference_info(deps, reference_id)).info)


@router.get("/{reference_id}/thumbnail")
async def get_thumbnail(reference_id: str, deps: DependenciesDep) -> Response:
    """Return a small version of the picture."""
    return Response((await _require_reference_info(deps, reference_id)).thumbnail, media_type="image/jpeg")


@router.delete("/{reference_id}", status_code=204)
async def delete_reference(
    reference_id: str, proxy_request: ProxyRequestDep, deps: DependenciesDep
) -> Response:
    """Remove a reference from all replicas. Sessions that animate it go on."""
    if not await deps.controller.remove_reference.remote(reference_id):
        raise UnknownReferenceError(_UNKNOWN_MESSAGE)
    await deps.replicas.request_all(proxy_request)
    return Response(status_code=204)


async def _require_reference_info(deps: IngressDependencies, id: str) -> StoredClusterReference:
    kept: StoredClusterReference | None = await deps.controller.get_reference_info.remote(id)
    if kept is None:
        raise UnknownReferenceError(_UNKNOWN_MESSAGE)
    return kept


def _make_stored_reference(
    id: str, proxy_request: ProxyRequest, info: ProxyResponse, thumbnail: ProxyResponse
) -> StoredClusterReference:
    values: Mapping[str, Any] = json.loads(info.body)
    given: Mapping[str, list[Any]] = parse_qs(proxy_request.query)
    return StoredClusterReference(
        id=id,
        data=proxy_request.body,
        allow_no_face=given.get("allow_no_face", [""])[-1].lower() in _TRUE_VALUES,
        crop=bool(values["cropped"]),
        info=dict(values),
        thumbnail=thumbnail.body,
        face=given.get("face", ["auto"])[-1],
        face_box=given.get("face_box", [None])[-1],
    )
