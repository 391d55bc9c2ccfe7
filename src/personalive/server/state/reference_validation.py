"""Validate an uploaded picture: whether it has one face to animate, and which part of it is shown."""

from __future__ import annotations

import hashlib
import io
import math
from dataclasses import dataclass
from datetime import UTC, datetime

import PIL.Image

from personalive.errors import NoFaceError
from personalive.face.crop import CropBox, ImageSize, extract_crop
from personalive.face.face import Face, select_dominant_face
from personalive.face.tracker import FaceDetector
from personalive.jobs.reference_image import ReferenceImage, crop_to_face, detect_reference, fit_whole_image
from personalive.media import Image, decode_image
from personalive.media.rotation import rotate_image
from personalive.pipelines.base import DetectedFace

THUMBNAIL_SIDE = 256
_RIVAL_MIN_SIZE, _RIVAL_MAX_OFFSET = 0.8, 0.2
"""A second face rivals the first if it has at least this share of its size, unless it is farther from the middle by
this share of half the diagonal."""


@dataclass(frozen=True, slots=True, eq=False)
class StoredReference:
    """A picture that was uploaded as a reference: its bytes, since its pixels take many times as much memory.

    `face` is in the pixels of the upright picture of `width` × `height`, which is the decoded picture turned
    clockwise by `rotation` degrees. `sha256` is the hash of the bytes. `allow_no_face`: the picture was accepted
    only because the request allowed pictures without a clear face.
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

    def frame_image(self, size: ImageSize) -> Image:
        """Decode the picture and return the image to animate, uint8 RGB at `size` (width, height).

        Do not call it on the event loop.
        """
        picture = rotate_image(decode_image(self.data), self.rotation)
        return _frame_picture(picture, self.detected_face, size, cropped=self.cropped)[0]


@dataclass(frozen=True, slots=True, eq=False)
class ValidatedReference:
    """A picture to store, and the part of it that is animated, at the requested size."""

    stored: StoredReference
    image: Image


def make_reference_id(data: bytes, *, cropped: bool) -> str:
    """Return the id of a picture's bytes: 16 hex digits, which differ if the whole picture is shown."""
    return hashlib.sha256(data + (b"" if cropped else b" whole")).hexdigest()[:16]


def validate_picture(
    data: bytes, size: ImageSize, *, allow_no_face: bool, cropped: bool
) -> ValidatedReference:
    """Decode a picture, find its face and frame it at `size` (width, height). May take seconds.

    With `allow_no_face`, a picture without a face is shown whole, and one of several faces is chosen.

    Raises:
        MediaError: The picture cannot be used (also its subclasses).
        NoFaceError: There is no upright face, or there are several and no dominant one.
    """
    picture = decode_image(data, name="The picture")
    lenient, notes = False, []
    try:
        portrait: ReferenceImage | None = detect_reference(picture)
    except NoFaceError as error:
        if not allow_no_face:
            raise
        portrait, lenient = None, True
        notes.append(str(error))
    face = seen = None
    if portrait is not None:
        picture, seen = portrait.image, portrait.face
        with FaceDetector() as detector:
            if portrait.face_count > 1 and (
                rivals := _describe_rival_faces(detector.detect(picture), portrait)
            ):
                lenient = True
                if not allow_no_face:
                    raise NoFaceError(rivals)
            face = DetectedFace(seen.box, detector.confidence(picture, seen))
        notes.extend(portrait.notes)
    framed, warnings = _frame_picture(picture, seen, size, cropped=cropped)
    stored = StoredReference(
        id=make_reference_id(data, cropped=cropped),
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
        notes=(*notes, *warnings),
        rotation=portrait.rotation_degrees if portrait is not None else 0,
    )
    return ValidatedReference(stored, framed)


def _frame_picture(
    picture: Image, face: Face | None, size: ImageSize, *, cropped: bool
) -> tuple[Image, tuple[str, ...]]:
    if face is None:
        box = CropBox.largest((picture.shape[1], picture.shape[0]), size[0] / size[1])
        return extract_crop(picture, box, size), ()
    framing = (crop_to_face if cropped else fit_whole_image)(ReferenceImage(picture, face), size)
    return framing.image, framing.warnings


def _describe_rival_faces(faces: list[Face], portrait: ReferenceImage) -> str | None:
    """Return a message if no face stands out from the others, else None."""
    size = portrait.size
    first = select_dominant_face(faces, size)
    others = [face for face in faces if face is not first]
    second = select_dominant_face(others, size)
    if first is None or second is None:
        return None
    if (
        second.size < _RIVAL_MIN_SIZE * first.size
        or _distance_from_center(second, size) > _distance_from_center(first, size) + _RIVAL_MAX_OFFSET
    ):
        return None
    x, y = (round(value) for value in first.centre)
    return (
        f"The picture shows {len(faces)} faces and none of them stands out: crop it to one person, or add "
        f"?allow_no_face=true to take the one at {x}, {y}."
    )


def _distance_from_center(face: Face, size: ImageSize) -> float:
    """Return the distance from the picture's middle, as a share of half its diagonal."""
    x, y = face.centre
    return math.hypot(x - size[0] / 2, y - size[1] / 2) / (math.hypot(*size) / 2)


def _make_thumbnail(picture: Image) -> bytes:
    small = PIL.Image.fromarray(picture)
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), PIL.Image.Resampling.BOX, reducing_gap=None)
    encoded = io.BytesIO()
    small.save(encoded, "JPEG", quality=85)
    return encoded.getvalue()
