"""Reads the reference, finds its face, and crops it to what the pipeline animates."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

from personalive.errors import MediaError, NoFaceError, UnsupportedMediaError
from personalive.face.crop import CropBox, ImageSize, compute_reference_crop, extract_crop, measure_head
from personalive.face.face import Face
from personalive.face.search import SearchReach
from personalive.face.tracker import FaceDetector
from personalive.face.upright import UprightImage, is_upright, turn_upright
from personalive.media import PICTURES, Image, Rotation, is_image_file, open_driving, read_image
from personalive.media.rotation import rotate_image
from personalive.media.user_paths import is_folder

_MIN_HEAD_SIDE = 64
_MIN_HEAD_SHARE = 0.15
_MAX_SEARCHED_FRAMES = 250
_LOW_SCORE = 0.2
"""Confidence below which a face in a video's frame is skipped in favour of a clearer one."""
_MAX_OUTSIDE_SHARE = 0.12
"""Share of a face's box outside of the picture from which on the face counts as cut off."""
_ADVICE = "Use a picture in which one face is clearly visible, not too small and not turned away."
_CUT_OFF_WARNING = (
    "The reference's face is cut off at the picture's edge: the missing part is invented. "
    "Use a picture that shows the whole face."
)


@dataclass(frozen=True, slots=True, eq=False)
class ReferenceImage:
    """A reference: `image` uint8 RGB (H, W, 3), the `face` to animate, and `notes` on it.

    `turn`: by how many degrees clockwise the given picture was turned. `face_count`: how many faces it shows.
    """

    image: Image
    face: Face
    notes: tuple[str, ...] = ()
    rotation_degrees: int = 0
    face_count: int = 1

    @property
    def size(self) -> ImageSize:
        """The image's (width, height)."""
        return self.image.shape[1], self.image.shape[0]


@dataclass(frozen=True, slots=True, eq=False)
class ReferenceCrop:
    """The part of a portrait that is animated: `box` in its pixels, and `image`, the part at the animated size."""

    box: CropBox
    image: Image
    warnings: tuple[str, ...] = ()


def read_reference(path: Path, rotation: Rotation = "auto") -> ReferenceImage:
    """Read a picture, or the first frame of a video that shows a face, and turn it clockwise by `rotation`.

    Raises `NoFaceError` where there is no face, or none that is upright then, `MediaError` where the file cannot
    be used.
    """
    if is_folder(path):
        raise MediaError(f"{path} is a directory: the reference must be a picture or a video.")
    if is_image_file(path):
        return detect_reference(read_image(path), path.name, rotation)
    with FaceDetector() as detector:
        return _detect_in_video(path, detector, rotation)


def detect_reference(image: Image, name: str = "the picture", rotation: Rotation = "auto") -> ReferenceImage:
    """Find the face in `image`, uint8 RGB (height, width, 3), turned by `rotation`; messages call it `name`.

    Raises `NoFaceError` where there is no face, or none that is upright then.
    """
    with FaceDetector() as detector:
        found = _turn_upright(detector, image, name, rotation, "very far")
        return _build_reference(found, name, *_rotation_notes(name, found.rotation, rotation))


def _detect_in_video(path: Path, detector: FaceDetector, rotation: Rotation) -> ReferenceImage:
    try:
        video = open_driving(path)
    except UnsupportedMediaError as error:
        raise UnsupportedMediaError(
            f"{path.name} is neither a {PICTURES} picture nor a video that can be read: convert it first."
        ) from error
    problem: NoFaceError | None = None
    doubtful: ReferenceImage | None = None
    with video:
        for frame in itertools.islice(video, _MAX_SEARCHED_FRAMES):
            try:
                found = _turn_upright(detector, frame.image, path.name, rotation, "far")
            except NoFaceError as error:
                problem = problem if isinstance(problem, _NotUprightError) else error
                continue
            note = f"{path.name} is a video: its frame at {frame.time:.2f} s is the reference."
            turned_too = _rotation_notes(path.name, found.rotation, rotation)
            portrait = _build_reference(found, path.name, note, *video.info.notes, *turned_too)
            if detector.confidence(portrait.image, portrait.face) >= _LOW_SCORE:
                return portrait
            doubtful = doubtful or portrait
    if doubtful is not None:
        return doubtful
    if isinstance(problem, _NotUprightError):
        raise problem
    raise NoFaceError(
        f"No face was found in the first {_MAX_SEARCHED_FRAMES} frames of {path.name}. {_ADVICE}"
    )


class _NotUprightError(NoFaceError):
    """There is a face, but it is sideways or upside down."""


def _turn_upright(
    detector: FaceDetector, image: Image, name: str, rotation: Rotation, reach: SearchReach
) -> UprightImage:
    """Return the picture turned by `rotation`. Raises `NoFaceError` unless a face in it is upright then."""
    if rotation == "auto":
        faces = detector.detect(image, reach=reach)
        if (turned_up := turn_upright(detector, image, reach=reach, faces=faces)) is not None:
            return turned_up
        after = "whichever way it is turned: rotate the picture first"
    else:
        image = rotate_image(image, rotation)
        faces = detector.detect(image, reach=reach)
        found = UprightImage(image, rotation, faces)
        if found.face is not None and is_upright(detector, image, found.face):
            return found
        after = f"when it is rotated by {rotation}°: choose another angle, or auto"
    if not faces:
        raise NoFaceError(f"No face was found in {name}. {_ADVICE}")
    raise _NotUprightError(f"The face in {name} is not upright {after}.")


def _build_reference(found: UprightImage, name: str, *notes: str) -> ReferenceImage:
    face = found.face
    assert face is not None
    if len(found.faces) > 1:
        x, y = (round(value) for value in face.centre)
        notes = (
            *notes,
            f"{name} shows more than one face: that at {x}, {y} is animated; crop to choose another.",
        )
    return ReferenceImage(found.image, face, notes, found.rotation, len(found.faces))


def _rotation_notes(name: str, turn: int, rotation: Rotation) -> tuple[str, ...]:
    return (rotation_note(name, turn),) if turn and rotation == "auto" else ()


def rotation_note(name: str, degrees: int) -> str:
    """Return the note that a picture or clip was turned by `degrees` clockwise to be upright."""
    how = "is upside down" if degrees == 180 else "lies on its side"
    return f"{name} {how}: it is rotated by {degrees}° clockwise."


def crop_to_face(portrait: ReferenceImage, size: ImageSize) -> ReferenceCrop:
    """Crop the portrait to head and shoulders at `size` (width, height)."""
    box = compute_reference_crop(portrait.face, portrait.size, size[0] / size[1])
    height = measure_head(portrait.face)[2]
    warnings = []
    if height < _MIN_HEAD_SIDE:
        warnings.append(f"The reference's face is only {height:.0f} pixels high: the result will be blurred.")
    if is_face_cut_off(portrait.face, portrait.size):
        warnings.append(_CUT_OFF_WARNING)
    return ReferenceCrop(box, extract_crop(portrait.image, box, size), tuple(warnings))


def fit_whole_image(portrait: ReferenceImage, size: ImageSize) -> ReferenceCrop:
    """Return the picture at `size` (width, height), cut where its aspect differs, never through the face."""
    width, height = portrait.size
    box = CropBox.largest(portrait.size, size[0] / size[1])
    left, top, right, bottom = portrait.face.box
    box = CropBox(
        _clamp_span_start(left, right, box.left, box.width, width),
        _clamp_span_start(top, bottom, box.top, box.height, height),
        box.width,
        box.height,
    )
    share = measure_head(portrait.face)[2] / box.height
    warnings = []
    if share < _MIN_HEAD_SHARE:
        warnings.append(
            f"The face fills only {100 * share:.0f} % of the picture's height: "
            "crop it to the face and paste it back for a finer result."
        )
    if is_face_cut_off(portrait.face, portrait.size):
        warnings.append(_CUT_OFF_WARNING)
    return ReferenceCrop(box, extract_crop(portrait.image, box, size), tuple(warnings))


def is_face_cut_off(face: Face, size: ImageSize) -> bool:
    """Return whether a large part of a face is outside of the picture of `size` (width, height)."""
    left, top, right, bottom = face.box
    inside = max(min(right, size[0]) - max(left, 0), 0) * max(min(bottom, size[1]) - max(top, 0), 0)
    return inside < (1 - _MAX_OUTSIDE_SHARE) * (right - left) * (bottom - top)


def _clamp_span_start(low: float, high: float, start: float, length: float, limit: int) -> float:
    """Return `start` of a span, moved if necessary so that it covers low…high, as centred as possible."""
    if start <= low and high <= start + length:
        return start
    return min(max((low + high - length) / 2, 0.0), limit - length)


def size_for_aspect(image_size: ImageSize, side: int) -> ImageSize:
    """Return the width and height, multiples of 64 in 256…1024, closest to the image's aspect.

    The shorter side is `side`, unless the longer would exceed 1024 then.
    """
    aspect = max(image_size) / min(image_size)
    short = side if side * aspect <= 1024 else max(round(1024 / aspect / 64) * 64, 256)
    long = min(max(round(short * aspect / 64) * 64, short), 1024)
    return (long, short) if image_size[0] >= image_size[1] else (short, long)
