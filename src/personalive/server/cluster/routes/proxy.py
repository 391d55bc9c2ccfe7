"""Routes that any replica can answer, those for files of each machine, and all others of the single server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

from fastapi import APIRouter, Response
from starlette.responses import StreamingResponse

from personalive.server.cluster import aggregate
from personalive.server.cluster.dependencies import (
    DependenciesDep,
    IngressDependencies,
    ProxyRequestDep,
    make_response,
)
from personalive.server.cluster.messages import ReplicaStatus
from personalive.server.cluster.replica_client import (
    ProxyRequest,
    ReplicaUnreachableError,
    StreamingProxyResponse,
)
from personalive.server.cluster.replica_set import NoReplicaError, ReplicaReply
from personalive.server.errors import NotFoundError
from personalive.server.routes.recordings import RecordingList
from personalive.server.state.download_manager import ModelsStatus

router = APIRouter()

_ALL_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


@router.get("/api/v1/models/status", response_model=ModelsStatus)
async def get_models_status(
    proxy_request: ProxyRequestDep, deps: DependenciesDep
) -> Response | aggregate.Json:
    """Whether a pipeline's weights are on every machine."""
    replies = await _request_each_node(deps, proxy_request)
    refused = next((each.response for each in replies if not each.response.ok), None)
    return aggregate.merge_models_status(replies) if refused is None else make_response(refused)


@router.post("/api/v1/models/download")
async def download_models(proxy_request: ProxyRequestDep, deps: DependenciesDep) -> Response:
    """Fetch the weights that are missing, on every machine."""
    replies = await _request_each_node(deps, proxy_request)
    return make_response(min((each.response for each in replies), key=lambda answer: answer.status))


@router.get("/api/v1/recordings")
async def list_recordings(proxy_request: ProxyRequestDep, deps: DependenciesDep) -> RecordingList:
    """All recordings of every machine."""
    found = aggregate.merge_recordings(await deps.replicas.request_all(proxy_request))
    return RecordingList.model_validate({"recordings": found})


@router.get("/api/v1/recordings/{recording_id}")
async def get_recording(recording_id: str, proxy_request: ProxyRequestDep, deps: DependenciesDep) -> Response:
    """Stream a recording from the machine that has it."""
    del recording_id
    for member in await deps.replicas.list_replicas():
        opened = AsyncExitStack()
        try:
            answer = await opened.enter_async_context(deps.replicas.stream(member, proxy_request))
        except ReplicaUnreachableError:
            continue
        if answer.status != 404:
            return _make_streaming_response(answer, opened)
        await opened.aclose()
    raise NotFoundError("There is no such recording.")


@router.delete("/api/v1/recordings/{recording_id}")
async def delete_recording(
    recording_id: str, proxy_request: ProxyRequestDep, deps: DependenciesDep
) -> Response:
    """Delete a recording on the machine that has it."""
    del recording_id
    replies = await deps.replicas.request_all(proxy_request)
    if not replies:
        raise NoReplicaError
    # A recording that is being written is refused with 409; a machine without it answers 404.
    answers = [each.response for each in replies if each.response.status != 404] or [replies[0].response]
    return make_response(answers[0])


@router.api_route("/{path:path}", methods=_ALL_METHODS, include_in_schema=False)
async def proxy_to_any(path: str, proxy_request: ProxyRequestDep, deps: DependenciesDep) -> Response:
    """Answer other paths, such as schemas, hardware and unknown ones, as the single server does."""
    del path
    return make_response(await deps.replicas.request_any(proxy_request))


async def _request_each_node(deps: IngressDependencies, proxy_request: ProxyRequest) -> list[ReplicaReply]:
    """Return the answer of one replica of each machine. Raises `NoReplicaError`."""
    machines: dict[str, ReplicaStatus] = {
        member.node: member for member in await deps.replicas.list_replicas()
    }
    replies = await deps.replicas.request_each(machines.values(), proxy_request)
    if not replies:
        raise NoReplicaError
    return replies


def _make_streaming_response(answer: StreamingProxyResponse, opened: AsyncExitStack) -> StreamingResponse:
    async def body() -> AsyncIterator[bytes]:
        async with opened:
            async for piece in answer.body:
                yield piece

    headers = dict(answer.headers)
    if answer.length is not None:
        headers["Content-Length"] = str(answer.length)
    return StreamingResponse(body(), answer.status, headers)
