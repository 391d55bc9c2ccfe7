"""Recordings of sessions: start, stop, fetch, delete."""

from __future__ import annotations

import contextlib

from fastapi import APIRouter, Response
from fastapi.responses import FileResponse
from pydantic import BaseModel, ConfigDict, Field

from personalive.server.dependencies import ServerDep
from personalive.server.errors import NotFoundError, error_responses
from personalive.server.recordings.recording_manager import DEFAULT_FPS, RecordingInfo

router = APIRouter(prefix="/api/v1", tags=["recordings"])


class RecordingRequest(BaseModel):
    """Options for a recording."""

    model_config = ConfigDict(extra="forbid")

    fps: float = Field(DEFAULT_FPS, ge=1, le=120, description="Constant frame rate of the file.")


class RecordingList(BaseModel):
    """Every recording, newest first."""

    recordings: list[RecordingInfo]


@router.post(
    "/sessions/{session_id}/recording", status_code=201, responses=error_responses(400, 404, 409, 422, 507)
)
async def start_recording(
    session_id: str, server: ServerDep, request: RecordingRequest | None = None
) -> RecordingInfo:
    """Record what a session sends, from its next frame on, as an H.264 file that says it is synthetic."""
    session = server.sessions.require(session_id)
    sha256 = None
    with contextlib.suppress(NotFoundError):  # the reference was deleted after the session was opened
        sha256 = server.references.get(session.reference_id).sha256
    fps = DEFAULT_FPS if request is None else request.fps
    return await server.recordings.start(session, fps=fps, reference_sha256=sha256)


@router.delete("/sessions/{session_id}/recording", responses=error_responses(404))
async def finish_recording(session_id: str, server: ServerDep) -> RecordingInfo:
    """End a session's recording. The answer comes when the file is complete, with its address."""
    return await server.recordings.finish(session_id)


@router.get("/recordings")
async def list_recordings(server: ServerDep) -> RecordingList:
    """Return all recordings: running, complete and failed ones."""
    return RecordingList(recordings=await server.recordings.all())


@router.get(
    "/recordings/{recording_id}",
    response_class=FileResponse,
    responses={
        **error_responses(400, 404, 409),
        200: {"description": "The file.", "content": {"video/mp4": {}}},
        206: {"description": "The requested part of the file.", "content": {"video/mp4": {}}},
        416: {"description": "The file has no such part.", "content": {"text/plain": {}}},
    },
)
async def get_recording(recording_id: str, server: ServerDep) -> FileResponse:
    """Return a complete recording, or a part of it if the request has a Range header."""
    path = await server.recordings.get_path(recording_id)
    return FileResponse(path, media_type="video/mp4", filename=path.name)


@router.delete("/recordings/{recording_id}", status_code=204, responses=error_responses(404, 409))
async def delete_recording(recording_id: str, server: ServerDep) -> Response:
    """Delete a complete recording."""
    await server.recordings.delete(recording_id)
    return Response(status_code=204)
