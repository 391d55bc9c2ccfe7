"""The reference: read, its face found, and cut to what the pipeline will animate."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

from personalive.errors import MediaError, NoFaceError, UnsupportedMediaError
from personalive.face.crop import CropBox, Size, cut, head_in_frame, reference_crop
from personalive.face.face import Face, dominant
from personalive.face.pose import fit_head
from personalive.face.tracker import FaceDetector
from personalive.media import PICTURES, Image, is_image_file, open_driving, read_image
from personalive.media.user_paths import is_folder

_SMALLEST_HEAD = 64
_SMALLEST_SHARE = 0.15
_SEARCHED_FRAMES = 250
_LYING = 60.0
"""Degrees of tilt from which a portrait lies on its side."""
_ADVICE = "Use a picture in which one face is clearly visible, not too small and not turned away."


@dataclass(frozen=True, slots=True, eq=False)
class Portrait:
    """A reference as it was given: `image` uint8 RGB (H, W, 3), the `face` to animate, and `notes` on it."""

    image: Image
    face: Face
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> Size:
        """(width, height) of the image."""
        return self.image.shape[1], self.image.shape[0]


@dataclass(frozen=True, slots=True, eq=False)
class Framing:
    """What of a portrait is animated: `box` in its pixels, and `image`, that part at the pipeline's size."""

    box: CropBox
    image: Image
    warnings: tuple[str, ...] = ()


def read_portrait(path: Path) -> Portrait:
    """Read a picture, or the first frame of a video that shows a face.

    Raises `NoFaceError` where there is none, `MediaError` where the file cannot be used.
    """
    if is_folder(path):
        raise MediaError(f"{path} is a directory: the reference must be a picture or a video.")
    if is_image_file(path):
        return find_portrait(read_image(path), path.name)
    with FaceDetector() as detector:
        return _from_video(path, detector)


def find_portrait(image: Image, name: str = "the picture") -> Portrait:
    """The portrait in uint8 RGB (height, width, 3), called `name` in what is said of it.

    Raises `NoFaceError` where there is no face, or none that stands upright.
    """
    with FaceDetector() as detector:
        faces = detector.detect(image)
        if not faces:
            raise NoFaceError(f"No face was found in {name}. {_ADVICE}")
        portrait = _portrait(image, faces, name)
        tilt = abs(float(fit_head(portrait.face.landmarks).angles[2]))
        if tilt > _LYING or detector.upside_down(image, portrait.face):
            raise NoFaceError(f"The face in {name} does not stand upright: rotate the picture first.")
        return portrait


def _from_video(path: Path, detector: FaceDetector) -> Portrait:
    try:
        video = open_driving(path)
    except UnsupportedMediaError as error:
        raise UnsupportedMediaError(
            f"{path.name} is neither a {PICTURES} picture nor a video that can be read: convert it first."
        ) from error
    with video:
        for frame in itertools.islice(video, _SEARCHED_FRAMES):
            if faces := detector.detect(frame.image, thorough=False):
                note = f"{path.name} is a video: its frame at {frame.time:.2f} s is the reference."
                return _portrait(frame.image, faces, path.name, note)
    raise NoFaceError(f"No face was found in the first {_SEARCHED_FRAMES} frames of {path.name}. {_ADVICE}")


def _portrait(image: Image, faces: list[Face], name: str, *notes: str) -> Portrait:
    face = dominant(faces, (image.shape[1], image.shape[0]))
    assert face is not None
    if len(faces) > 1:
        x, y = (round(value) for value in face.centre)
        notes = (
            *notes,
            f"{name} shows more than one face: that at {x}, {y} is animated; crop to choose another.",
        )
    return Portrait(image, face, notes)


def crop_to_face(portrait: Portrait, size: Size) -> Framing:
    """Head and shoulders at `size` (width, height)."""
    box = reference_crop(portrait.face, portrait.size, size[0] / size[1])
    height = head_in_frame(portrait.face)[2]
    warnings = []
    if height < _SMALLEST_HEAD:
        warnings.append(f"The reference's face is only {height:.0f} pixels high: the result will be blurred.")
    return Framing(box, cut(portrait.image, box, size), tuple(warnings))


def whole_picture(portrait: Portrait, size: Size) -> Framing:
    """The picture at `size` (width, height), cut where its aspect differs, never through the face."""
    width, height = portrait.size
    box = CropBox.largest(portrait.size, size[0] / size[1])
    left, top, right, bottom = portrait.face.box
    box = CropBox(
        _showing(left, right, box.left, box.width, width),
        _showing(top, bottom, box.top, box.height, height),
        box.width,
        box.height,
    )
    share = head_in_frame(portrait.face)[2] / box.height
    warnings = []
    if share < _SMALLEST_SHARE:
        warnings.append(
            f"The face fills only {100 * share:.0f} % of the picture's height: "
            "cropped to the face and pasted back it would be finer."
        )
    return Framing(box, cut(portrait.image, box, size), tuple(warnings))


def _showing(low: float, high: float, start: float, length: float, limit: int) -> float:
    """`start` of a span moved, if it must be, so that low…high lies in the middle of what it can show."""
    if start <= low and high <= start + length:
        return start
    return min(max((low + high - length) / 2, 0.0), limit - length)


def whole_size(image_size: Size, side: int) -> Size:
    """Width and height, multiples of 64 in 256…1024, closest to the image's aspect.

    The shorter side is `side`, unless the longer would pass 1024 then.
    """
    aspect = max(image_size) / min(image_size)
    short = side if side * aspect <= 1024 else max(round(1024 / aspect / 64) * 64, 256)
    long = min(max(round(short * aspect / 64) * 64, short), 1024)
    return (long, short) if image_size[0] >= image_size[1] else (short, long)
