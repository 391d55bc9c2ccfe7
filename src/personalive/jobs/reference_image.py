"""Reads the reference, finds its face, and crops it to what the pipeline animates."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

from personalive.errors import FaceChoiceError, MediaError, NoFaceError, UnsupportedMediaError
from personalive.face.choice import FaceChoice, check_box_inside, describe_faces, has_rivals, list_faces
from personalive.face.crop import CropBox, ImageSize, compute_reference_crop, extract_crop, measure_head
from personalive.face.face import Box, Face
from personalive.face.search import SearchReach
from personalive.face.tracker import FaceDetector
from personalive.face.upright import UprightImage, is_upright, turn_upright
from personalive.media import (
    PICTURES,
    Image,
    Rotation,
    VideoReader,
    is_image_file,
    open_driving,
    read_image,
)
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
_BOX_ADVICE = f"{_ADVICE} For a painting, a cartoon or an animal, say where the face is (--face-box)."
_CHOICE_ADVICE = "Choose one by its number (--face 1), or see them outlined (--show-faces faces.png)."
_AUTO = FaceChoice()
_CUT_OFF_WARNING = (
    "The reference's face is cut off at the picture's edge: the missing part is invented. "
    "Use a picture that shows the whole face."
)


@dataclass(frozen=True, slots=True, eq=False)
class ReferenceImage:
    """A reference: `image` uint8 RGB (H, W, 3), the `face` to animate, and `notes` on it.

    `turn`: by how many degrees clockwise the given picture was turned. `faces`: all that it shows. `chosen`:
    whether somebody has said which of them, or where the face is, so that the pipeline must be told.
    """

    image: Image
    face: Face
    notes: tuple[str, ...] = ()
    rotation_degrees: int = 0
    faces: tuple[Face, ...] = ()
    chosen: bool = False

    @property
    def size(self) -> ImageSize:
        """The image's (width, height)."""
        return self.image.shape[1], self.image.shape[0]


@dataclass(frozen=True, slots=True, eq=False)
class ReferenceCrop:
    """The part of a portrait that is animated: `box` in its pixels, and `image`, the part at the animated size.

    `face_box`: where a face that somebody has chosen is in `image`, for `Pipeline.fuse`.
    """

    box: CropBox
    image: Image
    warnings: tuple[str, ...] = ()
    face_box: Box | None = None


def read_reference(
    path: Path,
    rotation: Rotation = "auto",
    *,
    choice: FaceChoice = _AUTO,
    face_box: Box | None = None,
) -> ReferenceImage:
    """Read a picture, or the first frame of a video that shows a face, and turn it clockwise by `rotation`.

    `choice` and `face_box` are those of `detect_reference`; with a box, it is a video's first frame.

    Raises `NoFaceError` where there is no face, or none that is upright then, `FaceChoiceError` where one of
    several must be chosen, `MediaError` where the file cannot be used.
    """
    if is_folder(path):
        raise MediaError(f"{path} is a directory: the reference must be a picture or a video.")
    if is_image_file(path):
        return detect_reference(read_image(path), path.name, rotation, choice=choice, face_box=face_box)
    with FaceDetector() as detector:
        return _detect_in_video(path, detector, rotation, choice, face_box)


def detect_reference(
    image: Image,
    name: str = "the picture",
    rotation: Rotation = "auto",
    *,
    choice: FaceChoice = _AUTO,
    face_box: Box | None = None,
    allow_rivals: bool = False,
) -> ReferenceImage:
    """Find the face in `image`, uint8 RGB (height, width, 3), turned by `rotation`; messages call it `name`.

    `choice`: which one of several. `face_box`: where it is in the turned picture, in pixels; no face need be found
    there, and "auto" turns nothing. `allow_rivals`: take the dominant one, also where none stands out.

    Raises `NoFaceError` where there is no face, or none that is upright then, `FaceChoiceError` where one of
    several must be chosen.
    """
    with FaceDetector() as detector:
        if face_box is not None:
            return _place_face(detector, image, rotation, face_box)
        found = _turn_upright(detector, image, name, rotation, "very far")
        notes = _rotation_notes(name, found.rotation, rotation)
        return _build_reference(found, name, choice, *notes, allow_rivals=allow_rivals)


def list_reference_faces(path: Path, rotation: Rotation = "auto") -> tuple[Image, tuple[Box, ...]]:
    """Return a portrait, turned upright, and the boxes of its faces by their numbers; there may be no face.

    Raises `MediaError` where the file cannot be used.
    """
    if is_image_file(path):
        image = read_image(path)
    else:
        with _open_video(path) as video:
            image = next(iter(video)).image
    with FaceDetector() as detector:
        try:
            found = _turn_upright(detector, image, path.name, rotation, "very far")
        except NoFaceError:
            return rotate_image(image, 0 if rotation == "auto" else rotation), ()
        return found.image, list_faces(found.faces)


def _place_face(detector: FaceDetector, image: Image, rotation: Rotation, face_box: Box) -> ReferenceImage:
    """Return the picture with the face in a box that somebody has drawn."""
    degrees = 0 if rotation == "auto" else rotation
    image = rotate_image(image, degrees)
    check_box_inside(face_box, (image.shape[1], image.shape[0]))
    face, recognized = detector.find_in_box(image, face_box)
    notes: tuple[str, ...] = ()
    if not recognized:
        notes = (
            "No face is recognized in the given box: eyes and mouth are taken to be where a face that fills it "
            "has them.",
        )
    return ReferenceImage(image, face, notes, degrees, (face,), chosen=True)


def _open_video(path: Path) -> VideoReader:
    try:
        return open_driving(path)
    except UnsupportedMediaError as error:
        raise UnsupportedMediaError(
            f"{path.name} is neither a {PICTURES} picture nor a video that can be read: convert it first."
        ) from error


def _detect_in_video(
    path: Path, detector: FaceDetector, rotation: Rotation, choice: FaceChoice, face_box: Box | None
) -> ReferenceImage:
    problem: NoFaceError | None = None
    doubtful: ReferenceImage | None = None
    with _open_video(path) as video:
        if face_box is not None:
            return _place_face(detector, next(iter(video)).image, rotation, face_box)
        for frame in itertools.islice(video, _MAX_SEARCHED_FRAMES):
            try:
                found = _turn_upright(detector, frame.image, path.name, rotation, "far")
            except NoFaceError as error:
                problem = problem if _is_telling(problem) else error
                continue
            note = f"{path.name} is a video: its frame at {frame.time:.2f} s is the reference."
            turned_too = _rotation_notes(path.name, found.rotation, rotation)
            try:
                portrait = _build_reference(found, path.name, choice, note, *video.info.notes, *turned_too)
            except FaceChoiceError as error:
                if choice.is_auto:
                    raise
                problem = error
                continue
            if detector.confidence(portrait.image, portrait.face) >= _LOW_SCORE:
                return portrait
            doubtful = doubtful or portrait
    if doubtful is not None:
        return doubtful
    if problem is not None and _is_telling(problem):
        raise problem
    raise NoFaceError(
        f"No face was found in the first {_MAX_SEARCHED_FRAMES} frames of {path.name}. {_ADVICE}"
    )


def _is_telling(problem: NoFaceError | None) -> bool:
    """Return whether there was a face, so that the problem says more than that none was found."""
    return isinstance(problem, _NotUprightError) or (
        isinstance(problem, FaceChoiceError) and bool(problem.boxes)
    )


class _NotUprightError(FaceChoiceError):
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
        size = (image.shape[1], image.shape[0])
        degrees = 0 if rotation == "auto" else rotation
        summary = f"No face was found in {name}."
        raise FaceChoiceError(summary, _BOX_ADVICE, size=size, rotation=degrees)
    raise _NotUprightError(
        f"The face in {name} is not upright {after}, or say where the face is (--face-box).",
        size=(image.shape[1], image.shape[0]),
        rotation=0 if rotation == "auto" else rotation,
    )


def _build_reference(
    found: UprightImage, name: str, choice: FaceChoice, *notes: str, allow_rivals: bool = False
) -> ReferenceImage:
    """Return the chosen face of a picture. Raises `FaceChoiceError` where it must be chosen first."""
    face, boxes = choice.pick(found.faces, found.size), list_faces(found.faces)
    listed = describe_faces(boxes)
    problem = None
    if face is None:
        problem = f"{name} has no face {choice}, but these: {listed}."
    elif choice.is_auto and not allow_rivals and has_rivals(found.faces, found.size):
        problem = f"{name} shows {len(boxes)} faces and none of them stands out: {listed}."
    if face is None or problem is not None:
        assert problem is not None
        raise FaceChoiceError(problem, _CHOICE_ADVICE, boxes=boxes, size=found.size, rotation=found.rotation)
    if choice.is_auto and len(boxes) > 1:
        number = boxes.index(face.box) + 1
        notes = (
            *notes,
            f"{name} shows more than one face, and number {number} is animated: {listed}. "
            "Another is chosen by its number (face).",
        )
    chosen = len(boxes) > 1 and not choice.is_auto
    return ReferenceImage(found.image, face, notes, found.rotation, tuple(found.faces), chosen)


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
    return _make_crop(portrait, box, size, warnings)


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
    return _make_crop(portrait, box, size, warnings)


def _make_crop(portrait: ReferenceImage, box: CropBox, size: ImageSize, warnings: list[str]) -> ReferenceCrop:
    face_box = None
    if portrait.chosen:
        left, top, right, bottom = portrait.face.box
        across, down = size[0] / box.width, size[1] / box.height
        face_box = (
            (left - box.left) * across,
            (top - box.top) * down,
            (right - box.left) * across,
            (bottom - box.top) * down,
        )
    return ReferenceCrop(box, extract_crop(portrait.image, box, size), tuple(warnings), face_box)


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
