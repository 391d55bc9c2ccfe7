"""A picture of a session: the frame that it sent last, marked as every file is."""

from __future__ import annotations

import asyncio
import contextlib
import io

from fastapi import APIRouter, Response

from personalive.media import Image, Provenance
from personalive.media.provenance import encode_image
from personalive.server.dependencies import ServerDep
from personalive.server.errors import ConflictError, NotFoundError, errors
from personalive.server.recordings.recording_manager import provenance_of

router = APIRouter(prefix="/api/v1", tags=["recordings"])

_PNG = {"image/png": {"schema": {"type": "string", "format": "binary"}}}


@router.get(
    "/sessions/{session_id}/picture",
    response_class=Response,
    responses={**errors(404, 409), 200: {"description": "The picture.", "content": _PNG}},
)
async def picture(session_id: str, server: ServerDep) -> Response:
    """The frame that a session sent last, as a PNG that says it is synthetic. 409 before the first frame."""
    stream = server.streams.require(session_id)
    frame = stream.last_sent
    if frame is None:
        raise ConflictError("No frame has been sent yet: try again in a moment.")
    sha256 = None
    with contextlib.suppress(NotFoundError):  # forgotten since the session was opened
        sha256 = server.references.get(stream.reference_id).sha256
    png = await asyncio.to_thread(_encoded, frame.image, provenance_of(stream.info, sha256))
    return Response(png, media_type="image/png")


def _encoded(image: Image, provenance: Provenance) -> bytes:
    file = io.BytesIO()
    encode_image(file, image, "PNG", provenance)
    return file.getvalue()
