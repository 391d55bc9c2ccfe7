"""Validate an uploaded picture: whether it has one face to animate, and which part of it is shown."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from datetime import UTC, datetime

import PIL.Image

from personalive.errors import FaceChoiceError, NoFaceError
from personalive.face.choice import FaceChoice, format_face_box, has_rivals
from personalive.face.crop import CropBox, ImageSize, extract_crop
from personalive.face.face import Box, Face
from personalive.face.tracker import FaceDetector
from personalive.jobs.reference_image import (
    ReferenceCrop,
    ReferenceImage,
    crop_to_face,
    detect_reference,
    fit_whole_image,
)
from personalive.media import Image, decode_image
from personalive.media.rotation import rotate_image
from personalive.pipelines.base import DetectedFace

THUMBNAIL_SIDE = 256
_AUTO = FaceChoice()


@dataclass(frozen=True, slots=True, eq=False)
class StoredReference:
    """A picture that was uploaded as a reference: its bytes, since its pixels take many times as much memory.

    `face` is in the pixels of the upright picture of `width` × `height`, which is the decoded picture turned
    clockwise by `rotation` degrees. `sha256` is the hash of the bytes. `allow_no_face`: the picture was accepted
    only because the request allowed pictures without a clear face. `chosen`: the request said which face it is, or
    where.
    """

    id: str
    data: bytes
    sha256: str
    width: int
    height: int
    thumbnail: bytes
    face: DetectedFace | None
    detected_face: Face | None
    cropped: bool
    allow_no_face: bool
    created: datetime
    notes: tuple[str, ...] = ()
    rotation: int = 0
    chosen: bool = False

    def frame(self, size: ImageSize) -> ReferenceCrop:
        """Decode the picture and return the part to animate at `size` (width, height).

        Do not call it on the event loop.
        """
        picture = rotate_image(decode_image(self.data), self.rotation)
        return _frame_picture(picture, self.detected_face, size, cropped=self.cropped, chosen=self.chosen)


@dataclass(frozen=True, slots=True, eq=False)
class ValidatedReference:
    """A picture to store, and the part of it that is animated, at the requested size."""

    stored: StoredReference
    crop: ReferenceCrop


def make_reference_id(
    data: bytes, *, cropped: bool, choice: FaceChoice = _AUTO, face_box: Box | None = None
) -> str:
    """Return the id of a picture's bytes: 16 hex digits.

    They differ if the whole picture is shown, and by the face that was chosen.
    """
    facts = "" if cropped else " whole"
    if face_box is not None:
        facts += f" face in {format_face_box(face_box)}"
    elif not choice.is_auto:
        facts += f" face {choice}"
    return hashlib.sha256(data + facts.encode()).hexdigest()[:16]


def validate_picture(
    data: bytes,
    size: ImageSize,
    *,
    allow_no_face: bool,
    cropped: bool,
    choice: FaceChoice = _AUTO,
    face_box: Box | None = None,
) -> ValidatedReference:
    """Decode a picture, find its face and frame it at `size` (width, height). May take seconds.

    With `allow_no_face`, a picture without a face is shown whole, and one of several faces is chosen. `choice`
    says which one of several, `face_box` where in the picture a face is that need not be found.

    Raises:
        MediaError: The picture cannot be used (also its subclasses).
        FaceChoiceError: There is no upright face, no such face, or there are several and no dominant one.
        InputError: The box is outside of the picture.
    """
    picture = decode_image(data, name="The picture")
    lenient, notes = False, []
    try:
        portrait: ReferenceImage | None = detect_reference(
            picture, choice=choice, face_box=face_box, allow_rivals=allow_no_face
        )
    except NoFaceError as error:
        can_allow = choice.is_auto
        if not (allow_no_face and can_allow):
            if isinstance(error, FaceChoiceError):
                raise _with_advice(error, can_allow=can_allow) from None
            raise
        portrait, lenient = None, True
        notes.append(str(error))
    face = seen = None
    if portrait is not None:
        picture, seen = portrait.image, portrait.face
        with FaceDetector() as detector:
            face = DetectedFace(seen.box, detector.confidence(picture, seen))
        lenient = not portrait.chosen and has_rivals(portrait.faces, portrait.size)
        notes.extend(portrait.notes)
    chosen = portrait is not None and portrait.chosen
    crop = _frame_picture(picture, seen, size, cropped=cropped, chosen=chosen)
    stored = StoredReference(
        id=make_reference_id(data, cropped=cropped, choice=choice, face_box=face_box),
        data=data,
        sha256=hashlib.sha256(data).hexdigest(),
        width=picture.shape[1],
        height=picture.shape[0],
        thumbnail=_make_thumbnail(picture),
        face=face,
        detected_face=seen,
        cropped=cropped,
        allow_no_face=lenient,
        created=datetime.now(UTC),
        notes=(*notes, *crop.warnings),
        rotation=portrait.rotation_degrees if portrait is not None else 0,
        chosen=chosen,
    )
    return ValidatedReference(stored, crop)


def _frame_picture(
    picture: Image, face: Face | None, size: ImageSize, *, cropped: bool, chosen: bool
) -> ReferenceCrop:
    if face is None:
        box = CropBox.largest((picture.shape[1], picture.shape[0]), size[0] / size[1])
        return ReferenceCrop(box, extract_crop(picture, box, size))
    return (crop_to_face if cropped else fit_whole_image)(ReferenceImage(picture, face, chosen=chosen), size)


def _with_advice(error: FaceChoiceError, *, can_allow: bool) -> FaceChoiceError:
    """Return the error with the advice for a client of the REST interface."""
    advice = "Add ?face_box=x,y,width,height in pixels to say where a face is"
    if error.boxes:
        advice = "Add ?face=1, or another number, to choose one"
    if can_allow:
        advice += ", or ?allow_no_face=true to use the picture as it is"
    return FaceChoiceError(
        error.summary, f"{advice}.", boxes=error.boxes, size=error.size, rotation=error.rotation
    )


def _make_thumbnail(picture: Image) -> bytes:
    small = PIL.Image.fromarray(picture)
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), PIL.Image.Resampling.BOX, reducing_gap=None)
    encoded = io.BytesIO()
    small.save(encoded, "JPEG", quality=85)
    return encoded.getvalue()
