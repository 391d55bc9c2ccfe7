"""What any replica can answer, what each machine has of its own, and whatever the single server answers besides."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

from fastapi import APIRouter, Response
from starlette.responses import StreamingResponse

from personalive.server.cluster import aggregate
from personalive.server.cluster.dependencies import AskedDep, Parts, PartsDep, passed_on
from personalive.server.cluster.messages import Member
from personalive.server.cluster.replica_client import Answering, Asked, UnreachableError
from personalive.server.cluster.replica_set import NoReplicaError, Said
from personalive.server.errors import NotFoundError
from personalive.server.routes.recordings import RecordingList
from personalive.server.state.download_manager import ModelsStatus

router = APIRouter()

_EVERY = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


@router.get("/api/v1/models/status", response_model=ModelsStatus)
async def models(asked: AskedDep, parts: PartsDep) -> Response | aggregate.Json:
    """Whether a pipeline's weights are on every machine."""
    said = await _each_machine(parts, asked)
    refused = next((each.answer for each in said if not each.answer.ok), None)
    return aggregate.models(said) if refused is None else passed_on(refused)


@router.post("/api/v1/models/download")
async def download(asked: AskedDep, parts: PartsDep) -> Response:
    """Fetch the weights that are missing, on every machine."""
    said = await _each_machine(parts, asked)
    return passed_on(min((each.answer for each in said), key=lambda answer: answer.status))


@router.get("/api/v1/recordings")
async def recordings(asked: AskedDep, parts: PartsDep) -> RecordingList:
    """All recordings of every machine."""
    found = aggregate.recordings(await parts.fleet.ask_all(asked))
    return RecordingList.model_validate({"recordings": found})


@router.get("/api/v1/recordings/{recording_id}")
async def fetch(recording_id: str, asked: AskedDep, parts: PartsDep) -> Response:
    """A recording, from the machine that has it, as it comes from there."""
    del recording_id
    for member in await parts.fleet.members():
        opened = AsyncExitStack()
        try:
            answer = await opened.enter_async_context(parts.fleet.asking(member, asked))
        except UnreachableError:
            continue
        if answer.status != 404:
            return _streamed(answer, opened)
        await opened.aclose()
    raise NotFoundError("There is no such recording.")


@router.delete("/api/v1/recordings/{recording_id}")
async def delete(recording_id: str, asked: AskedDep, parts: PartsDep) -> Response:
    """Delete a recording on the machine that has it."""
    del recording_id
    said = await parts.fleet.ask_all(asked)
    if not said:
        raise NoReplicaError
    # One that is being written refuses with 409, a machine without it with 404.
    answers = [each.answer for each in said if each.answer.status != 404] or [said[0].answer]
    return passed_on(answers[0])


@router.api_route("/{path:path}", methods=_EVERY, include_in_schema=False)
async def anything(path: str, asked: AskedDep, parts: PartsDep) -> Response:
    """Schemas, hardware, and what there is not, in the single server's words."""
    del path
    return passed_on(await parts.fleet.ask_any(asked))


async def _each_machine(parts: Parts, asked: Asked) -> list[Said]:
    """What one replica of each machine answers. Raises `NoReplicaError`."""
    machines: dict[str, Member] = {member.node: member for member in await parts.fleet.members()}
    said = await parts.fleet.ask_these(machines.values(), asked)
    if not said:
        raise NoReplicaError
    return said


def _streamed(answer: Answering, opened: AsyncExitStack) -> StreamingResponse:
    async def body() -> AsyncIterator[bytes]:
        async with opened:
            async for piece in answer.body:
                yield piece

    headers = dict(answer.headers)
    if answer.length is not None:
        headers["Content-Length"] = str(answer.length)
    return StreamingResponse(body(), answer.status, headers)
