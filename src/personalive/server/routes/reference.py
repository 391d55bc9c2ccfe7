"""References: add one as a picture, list them, delete one."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field

from personalive.errors import UnsupportedMediaError
from personalive.server.dependencies import ServerDep
from personalive.server.errors import error_responses
from personalive.server.state.reference_validation import StoredReference

router = APIRouter(prefix="/api/v1/personalive/reference", tags=["reference"])

_PICTURE_CONTENT = {"schema": {"type": "string", "format": "binary"}}
_PICTURE_TYPES = ("image/jpeg", "image/png", "image/webp", "image/heic", "image/heif", "image/avif")
_REQUEST_BODY = {
    "requestBody": {
        "description": "The bytes of a JPEG, PNG, WebP, HEIC or AVIF picture of up to 100 MB. A JPEG may have 250 "
        "megapixels, HEIC and AVIF 100, others 40; pictures over 40 megapixels are reduced.",
        "required": True,
        "content": dict.fromkeys(_PICTURE_TYPES, _PICTURE_CONTENT),
    }
}


class FaceInfo(BaseModel):
    """A face. `box` is left, top, right and bottom in pixels of the upright picture."""

    box: tuple[float, float, float, float]
    score: float = Field(ge=0, le=1)


class ReferenceInfo(BaseModel):
    """A stored reference."""

    reference_id: str
    width: int = Field(description="Width of the upright picture, in pixels.")
    height: int
    face: FaceInfo | None = Field(description="Null where a picture without a face was allowed.")
    cropped: bool = Field(description="Whether head and shoulders are shown, not the whole picture.")
    notes: list[str] = Field(description="Remarks on the picture.")
    created_at: datetime
    default: bool = Field(description="Whether sessions that name no reference use it.")
    thumbnail: str = Field(description="Address of a small JPEG of it.")


class ReferenceAdded(BaseModel):
    """A reference that was added: it is ready for sessions, and the default."""

    success: Literal[True] = True
    message: str
    reference_id: str
    width: int
    height: int
    face: FaceInfo | None
    notes: list[str]


class ReferenceList(BaseModel):
    """All references, the most recently used one first."""

    references: list[ReferenceInfo]
    default: str | None


@router.post("", responses=error_responses(400, 408, 409, 413, 415, 422, 503), openapi_extra=_REQUEST_BODY)
async def add_reference(
    request: Request,
    server: ServerDep,
    allow_no_face: Annotated[
        bool, Query(description="Accept a picture without a face, or with several of which none stands out.")
    ] = False,
    crop: Annotated[
        bool, Query(description="Show head and shoulders; false shows the whole picture.")
    ] = True,
    face: Annotated[
        str,
        Query(
            max_length=40,
            description="Which of several faces: left, right, largest, its number from the left, or x,y in "
            "pixels of the upright picture.",
            examples=["2"],
        ),
    ] = "auto",
    face_box: Annotated[
        str | None,
        Query(
            max_length=80,
            description="Where the face is, x,y,width,height in pixels of the picture as it is shown: for a "
            "painting, a cartoon or an animal, in which none is found.",
            examples=["120,80,200,220"],
        ),
    ] = None,
) -> ReferenceAdded:
    """Add the picture in the body, which becomes the default reference. Its content type is not used.

    Where a face must be chosen first, the error has `faces`, their boxes by number, and `picture`, the size that
    the boxes refer to.
    """
    data = await request.body()
    if request.headers.get("content-type", "").lower().startswith("multipart/"):
        raise UnsupportedMediaError(
            "The picture must be the body itself, not a form, as with: curl --data-binary @portrait.jpg."
        )
    stored = await server.references.add(
        data, allow_no_face=allow_no_face, crop=crop, face=face, face_box=face_box
    )
    return ReferenceAdded(
        message=" ".join(["The reference is ready.", *stored.notes]),
        reference_id=stored.id,
        width=stored.width,
        height=stored.height,
        face=_make_face_info(stored),
        notes=list(stored.notes),
    )


@router.get("")
async def list_references(server: ServerDep) -> ReferenceList:
    """Return all stored references."""
    default = server.references.default_id
    return ReferenceList(
        references=[_make_reference_info(stored, default) for stored in server.references.all()],
        default=default,
    )


@router.get("/{reference_id}", responses=error_responses(404))
async def get_reference(reference_id: str, server: ServerDep) -> ReferenceInfo:
    """Return a reference."""
    return _make_reference_info(server.references.get(reference_id), server.references.default_id)


@router.get(
    "/{reference_id}/thumbnail",
    response_class=Response,
    responses={
        **error_responses(404),
        200: {"description": "A small picture.", "content": {"image/jpeg": _PICTURE_CONTENT}},
    },
)
async def get_thumbnail(reference_id: str, server: ServerDep) -> Response:
    """Return the picture as a JPEG, 256 pixels wide or high at most, without its metadata."""
    stored = server.references.get(reference_id)
    return Response(stored.thumbnail, media_type="image/jpeg")


@router.delete("/{reference_id}", status_code=204, responses=error_responses(404))
async def delete_reference(reference_id: str, server: ServerDep) -> Response:
    """Delete a reference. Sessions that animate it go on."""
    server.references.remove(reference_id)
    return Response(status_code=204)


def _make_face_info(stored: StoredReference) -> FaceInfo | None:
    return None if stored.face is None else FaceInfo(box=stored.face.box, score=stored.face.score)


def _make_reference_info(stored: StoredReference, default: str | None) -> ReferenceInfo:
    return ReferenceInfo(
        reference_id=stored.id,
        width=stored.width,
        height=stored.height,
        face=_make_face_info(stored),
        cropped=stored.cropped,
        notes=list(stored.notes),
        created_at=stored.created,
        default=stored.id == default,
        thumbnail=f"{router.prefix}/{stored.id}/thumbnail",
    )
