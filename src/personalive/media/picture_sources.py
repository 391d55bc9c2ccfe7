"""The sources of `VideoReader` that are not videos: a still, an animated picture, a folder of pictures.

A source delivers the pictures shown from a given moment on, with strictly increasing times; the reader cuts them to
the wanted span and counts them.
"""

from __future__ import annotations

import io
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import PIL.Image

from personalive.errors import MediaError, MediaTooLargeError
from personalive.media.animation_timing import DEFAULT_DURATION, read_frame_durations
from personalive.media.flatten import flatten
from personalive.media.frame_shape import check_shape
from personalive.media.frame_timing import DEFAULT_FPS, estimate_rate, estimate_typical
from personalive.media.image import PICTURES, fit_size, fit_within, read_image, suppress_pillow_warnings
from personalive.media.picture_header import HEAD_BYTES, detect_image_type, read_stored_size
from personalive.media.types import Image, VideoInfo
from personalive.media.user_paths import translate_read_errors

MAX_ANIMATION_BYTES = 200_000_000
_TIMESTAMP_TICK = 0.001
_SEQUENCE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".heic", ".heif", ".avif"}


@dataclass(frozen=True)
class TimedImage:
    """A picture and the time at which it appears, in seconds from the start. `image` converts it on demand."""

    time: float
    duration: float
    image: Callable[[], Image]


class FrameSource(ABC):
    """One opened input. `ended_early` turns True if the data stopped before the header said."""

    info: VideoInfo
    ended_early = False

    def __init__(self) -> None:
        self.warnings: list[str] = []

    @property
    def lost_frames(self) -> int:
        """Number of frames that could not be decoded."""
        return 0

    @abstractmethod
    def frames(self, start: float) -> Iterator[TimedImage]:
        """Yield frames with strictly increasing times, beginning no later than the one shown at `start`."""

    def close(self) -> None:  # noqa: B027  (few hold a file open)
        """Close the file, if one is open."""


class StillSource(FrameSource):
    """A picture as a clip of one frame."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._image = read_image(path)
        self.info = _picture_info(self._image, DEFAULT_FPS, 1)

    def frames(self, start: float) -> Iterator[TimedImage]:
        """Yield the picture, which is shown at any time."""
        yield TimedImage(0.0, max(start, 0.0) + 1 / DEFAULT_FPS, lambda: self._image)


class SequenceSource(FrameSource):
    """A folder of numbered pictures, in the order of their numbers, at 25 per second."""

    def __init__(self, folder: Path) -> None:
        self._paths = _numbered_pictures(folder)
        if not self._paths:
            raise MediaError(f"{folder} holds no {PICTURES} pictures.")
        super().__init__()
        self._name = folder.name
        first = self._first_readable()
        self._size = (first.shape[1], first.shape[0])
        self.info = _picture_info(first, DEFAULT_FPS, len(self._paths))

    def _first_readable(self) -> Image:
        problem: MediaError | None = None
        for path in self._paths:
            try:
                return read_image(path)
            except MediaError as error:
                problem = problem or error
        raise MediaError(f"None of the pictures in {self._name} can be used: {problem}") from problem

    def frames(self, start: float) -> Iterator[TimedImage]:
        """Yield the pictures; one that cannot be decoded is left out, so that its predecessor is shown longer."""
        lost: list[str] = []
        odd = 0
        for number in range(max(0, int(start * DEFAULT_FPS) - 1), len(self._paths)):
            try:
                image = read_image(self._paths[number])
            except MediaError:
                lost.append(self._paths[number].name)
                continue
            size = (image.shape[1], image.shape[0])
            odd += fit_size(size, self._size) != self._size
            yield TimedImage(number / DEFAULT_FPS, 1 / DEFAULT_FPS, partial(fit_within, image, self._size))
        if odd:
            self.warnings.append(shape_change_warning(self._name, odd, self._size))
        if lost:
            self.warnings.append(
                f"{len(lost)} of the {len(self._paths)} pictures in {self._name} cannot be decoded "
                f"(the first is {lost[0]}): the ones before them are held."
            )


class AnimationSource(FrameSource):
    """An animated WebP or PNG. Frames are composed on white."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._name = path.name
        with translate_read_errors(path):
            if path.stat().st_size > MAX_ANIMATION_BYTES:
                limit = MAX_ANIMATION_BYTES // 1_000_000
                raise MediaTooLargeError(f"{path.name} is over {limit} MB, the most for an animated picture.")
            self._data = path.read_bytes()
        with suppress_pillow_warnings():
            picture = self._open()
            count = int(getattr(picture, "n_frames", 1))
        # A PNG can have a default picture for viewers without animation, which is not part of it.
        first = int(bool(picture.info.get("default_image")) and count > 1)
        self._frames = range(first, count)
        image = self._load(picture, first)
        self._size = (image.shape[1], image.shape[0])
        known = read_frame_durations(self._data)[: len(self._frames)]
        step = estimate_typical(known, _TIMESTAMP_TICK)
        self._durations = known + [step or DEFAULT_DURATION] * (len(self._frames) - len(known))
        info = _picture_info(image, estimate_rate(step), len(self._frames))
        self.info = replace(info, duration=sum(self._durations))

    def frames(self, start: float) -> Iterator[TimedImage]:
        """Yield the frames from the first on, since each builds on the one before; stop at a damaged one."""
        del start
        time = 0.0
        picture = self._open()
        for number, duration in zip(self._frames, self._durations, strict=True):
            try:
                image = self._load(picture, number)
            except MediaError:
                self.ended_early = True
                return
            yield TimedImage(time, duration, partial(fit_within, image, self._size))
            time += duration

    def close(self) -> None:
        """Drop the file's bytes."""
        self._data = b""

    def _open(self) -> PIL.Image.Image:
        _check_header(self._data, self._name)
        try:
            picture = PIL.Image.open(io.BytesIO(self._data), formats=("PNG", "WEBP"))
        except PIL.Image.DecompressionBombError as error:
            raise MediaTooLargeError(f"{self._name} has too many pixels.") from error
        except Exception as error:
            raise MediaError(f"{self._name} is damaged and cannot be decoded.") from error
        check_shape(*picture.size, self._name)
        return picture

    def _load(self, picture: PIL.Image.Image, number: int) -> Image:
        try:
            with suppress_pillow_warnings():
                picture.seek(number)
                picture.load()
                return np.array(flatten(picture), dtype=np.uint8, order="C")
        except Exception as error:
            # As with stills, a decoder may raise any exception on hostile bytes.
            raise MediaError(f"{self._name} is damaged and cannot be decoded.") from error


def open_picture_source(path: Path) -> StillSource | AnimationSource:
    """Open a picture file as a clip of one frame, or of many if it is animated."""
    return AnimationSource(path) if _is_animated(path) else StillSource(path)


def shape_change_warning(name: str, count: int, size: tuple[int, int]) -> str:
    """Return the warning that pictures of a clip have another shape than its first, of `size` (width, height)."""
    fitted = f"fitted into {size[0]}×{size[1]}"
    if count == 1:
        return f"One picture in {name} has another shape than the first: it is {fitted}."
    return f"{count} of the pictures in {name} have another shape than the first: they are {fitted}."


def _is_animated(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
        if detect_image_type(head) not in {"PNG", "WEBP"}:
            return False
        _check_header(head, path.name)
        with suppress_pillow_warnings(), PIL.Image.open(path, formats=("PNG", "WEBP")) as picture:
            return bool(getattr(picture, "is_animated", False))
    except MediaError:
        raise
    except Exception:
        # Decoding it as a still reports what is wrong.
        return False


def _check_header(data: bytes, name: str) -> None:
    """Raise `MediaError` for a bad shape that a PNG or WebP claims, before a decoder allocates it."""
    kind = detect_image_type(data[:HEAD_BYTES])
    size = None if kind is None else read_stored_size(data, kind)
    if size is not None:
        check_shape(*size, name)


def _numbered_pictures(folder: Path) -> list[Path]:
    with translate_read_errors(folder):
        entries = [path for path in folder.iterdir() if path.suffix.lower() in _SEQUENCE_SUFFIXES]
    visible = [path for path in entries if not path.name.startswith(".") and path.is_file()]
    return sorted(visible, key=_natural_sort_key)


def _natural_sort_key(path: Path) -> list[tuple[int, int, str]]:
    # Splitting on a captured group alternates text and digits, so 2 comes before 10.
    parts = re.split(r"([0-9]+)", path.name)
    return [(1, int(part), "") if part.isdigit() and part.isascii() else (0, 0, part) for part in parts]


def _picture_info(image: Image, fps: float, count: int) -> VideoInfo:
    height, width = image.shape[:2]
    return VideoInfo(width, height, fps, count / fps, count, rotation=0, has_audio=False)
