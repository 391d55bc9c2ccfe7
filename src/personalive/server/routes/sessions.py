"""Live sessions."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel

from personalive.server.dependencies import ServerDep
from personalive.server.errors import error_responses
from personalive.server.sessions.session import ServerSession

router = APIRouter(prefix="/api/v1/sessions", tags=["sessions"])


class Latency(BaseModel):
    """Milliseconds from a frame's arrival until it is sent, over the last ten seconds; null before the first."""

    p50: float | None
    p95: float | None


class AudioFigures(BaseModel):
    """The delay of a session's sound. `offset_ms` is how much later than the picture it is."""

    delay_ms: float
    offset_ms: float
    dropped: int


class SessionFigures(BaseModel):
    """The figures of a running session."""

    fps_in: float
    fps_out: float
    latency_ms: Latency
    chunk_ms: float
    queue_in: int
    queue_out: int
    dropped_in: int
    dropped_out: int
    frames_in: int
    frames_out: int
    frames_without_face: int
    keyframes: int
    audio: AudioFigures | None
    """Null as long as no sound is sent."""


class SessionInfo(BaseModel):
    """A live session."""

    id: str
    pipeline_id: str
    reference_id: str
    state: str
    opened_at: datetime
    parameters: dict[str, Any]
    figures: SessionFigures


class SessionList(BaseModel):
    """All live sessions, oldest first, and the most that there may be."""

    sessions: list[SessionInfo]
    max_sessions: int
    longest_stall_ms: float | None = None
    """The longest time that the event loop was busy while sessions streamed; measured with `debug_stalls` only."""


@router.get("")
async def list_sessions(server: ServerDep) -> SessionList:
    """Return every live session with its figures."""
    stalls = server.loop_lag
    return SessionList(
        sessions=[_make_session_info(session) for session in server.sessions.all()],
        max_sessions=server.sessions.limit,
        longest_stall_ms=None if stalls is None else round(1000 * stalls.max_lag_s, 2),
    )


@router.get("/{session_id}", responses=error_responses(404))
async def get_session(session_id: str, server: ServerDep) -> SessionInfo:
    """Return a live session."""
    return _make_session_info(server.sessions.require(session_id))


def _make_session_info(session: ServerSession) -> SessionInfo:
    return SessionInfo(
        id=session.id,
        pipeline_id=session.pipeline_info.id,
        reference_id=session.reference_id,
        state=session.state,
        opened_at=datetime.fromtimestamp(session.opened_at, UTC),
        parameters=session.pipeline_session.parameters.model_dump(mode="json"),
        figures=SessionFigures.model_validate(session.stats()),
    )
