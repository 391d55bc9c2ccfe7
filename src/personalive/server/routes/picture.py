"""A picture of a session: the frame that it sent last, with provenance as in every file."""

from __future__ import annotations

import asyncio
import contextlib
import io

from fastapi import APIRouter, Response

from personalive.media import Image, Provenance
from personalive.media.provenance import encode_image
from personalive.server.dependencies import ServerDep
from personalive.server.errors import ConflictError, NotFoundError, error_responses
from personalive.server.recordings.recording_manager import make_provenance

router = APIRouter(prefix="/api/v1", tags=["recordings"])

_PNG_RESPONSE = {"image/png": {"schema": {"type": "string", "format": "binary"}}}


@router.get(
    "/sessions/{session_id}/picture",
    response_class=Response,
    responses={**error_responses(404, 409), 200: {"description": "The picture.", "content": _PNG_RESPONSE}},
)
async def get_picture(session_id: str, server: ServerDep) -> Response:
    """Return the frame that a session sent last, as a PNG that says it is synthetic; 409 before the first."""
    session = server.sessions.require(session_id)
    frame = session.last_sent
    if frame is None:
        raise ConflictError("No frame has been sent yet: try again in a moment.")
    sha256 = None
    with contextlib.suppress(NotFoundError):  # the reference was deleted after the session was opened
        sha256 = server.references.get(session.reference_id).sha256
    png = await asyncio.to_thread(_encode_png, frame.image, make_provenance(session.pipeline_info, sha256))
    return Response(png, media_type="image/png")


def _encode_png(image: Image, provenance: Provenance) -> bytes:
    file = io.BytesIO()
    encode_image(file, image, "PNG", provenance)
    return file.getvalue()
