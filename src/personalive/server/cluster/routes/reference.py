"""References of the whole cluster: one replica looks at a picture, the ledger keeps it for all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

from fastapi import APIRouter, Response

from personalive.server.cluster.dependencies import AskedDep, Parts, PartsDep, passed_on
from personalive.server.cluster.messages import Kept
from personalive.server.cluster.replica_client import Answered, Asked, UnreachableError
from personalive.server.cluster.replica_set import NoReplicaError
from personalive.server.routes.reference import ReferenceInfo, ReferenceList
from personalive.server.state.reference_store import UnknownReferenceError

router = APIRouter(prefix="/api/v1/personalive/reference")

_UNKNOWN = "There is no such reference; it may have been forgotten."
_TRUE = frozenset({"true", "1", "on", "yes", "t", "y"})


@router.post("")
async def add(asked: AskedDep, parts: PartsDep) -> Response:
    """Give a picture as the body; it becomes the default reference."""
    for member in await parts.fleet.members():
        try:
            answer = await parts.fleet.ask(member, asked)
            if answer.ok:
                id = str(json.loads(answer.body)["reference_id"])
                one = Asked("GET", f"{router.prefix}/{id}")
                small = Asked("GET", f"{router.prefix}/{id}/thumbnail")
                info, thumbnail = await parts.fleet.ask(member, one), await parts.fleet.ask(member, small)
                await parts.ledger.keep.remote(_kept(id, asked, info, thumbnail))
        except UnreachableError:  # gone, and not missed yet
            continue
        return passed_on(answer)
    raise NoReplicaError


@router.get("")
async def every(parts: PartsDep) -> ReferenceList:
    """All references that are kept."""
    kept: list[Kept] = await parts.ledger.references.remote()
    told = [ReferenceInfo.model_validate(each.info) for each in kept]
    return ReferenceList(
        references=told, default=next((each.reference_id for each in told if each.default), None)
    )


@router.get("/{reference_id}")
async def one(reference_id: str, parts: PartsDep) -> ReferenceInfo:
    """One reference."""
    return ReferenceInfo.model_validate((await _look(parts, reference_id)).info)


@router.get("/{reference_id}/thumbnail")
async def thumbnail(reference_id: str, parts: PartsDep) -> Response:
    """The picture, made small."""
    return Response((await _look(parts, reference_id)).thumbnail, media_type="image/jpeg")


@router.delete("/{reference_id}", status_code=204)
async def forget(reference_id: str, asked: AskedDep, parts: PartsDep) -> Response:
    """Forget a reference everywhere. Sessions that animate it go on."""
    if not await parts.ledger.forget.remote(reference_id):
        raise UnknownReferenceError(_UNKNOWN)
    await parts.fleet.ask_all(asked)
    return Response(status_code=204)


async def _look(parts: Parts, id: str) -> Kept:
    kept: Kept | None = await parts.ledger.look_at.remote(id)
    if kept is None:
        raise UnknownReferenceError(_UNKNOWN)
    return kept


def _kept(id: str, asked: Asked, info: Answered, thumbnail: Answered) -> Kept:
    told: Mapping[str, Any] = json.loads(info.body)
    given = parse_qs(asked.query)
    return Kept(
        id=id,
        data=asked.body,
        allow_no_face=given.get("allow_no_face", [""])[-1].lower() in _TRUE,
        crop=bool(told["cropped"]),
        info=dict(told),
        thumbnail=thumbnail.body,
    )
