"""A camera made up: frames on time, each with its number, whose time of capture is kept."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from aiortc import MediaStreamTrack
from aiortc.mediastreams import MediaStreamError

from personalive.media import Image, open_driving
from tests.server import barcode

CLOCK = Fraction(1, 90_000)

Size = tuple[int, int]
"""Width and height."""
Sizes = Sequence[tuple[float, Size]]
"""From that second on, frames of that size."""

SMALL: Sizes = ((0.0, (480, 270)),)
GROWING: Sizes = ((0.0, (480, 270)), (1.0, (640, 360)), (2.0, (960, 540)), (3.0, (1280, 720)))
"""As a browser begins: small, and larger when the network turns out to carry it."""

Scene = Callable[[int, Size], Image]
"""What is in front of the camera at that number and size, as planes (3/2 height, width) of yuv420p."""


class Camera(MediaStreamTrack):
    """Captures `fps` frames per second, never late: what is not fetched in time is not captured.

    `captured` is the time of capture by number, in seconds of `time.monotonic`.
    """

    kind = "video"

    def __init__(self, fps: float, sizes: Sizes = SMALL, scene: Scene | None = None) -> None:
        super().__init__()
        self.fps = fps
        self.captured: list[float] = []
        self._sizes = sizes
        self._scene = scene or numbers()
        self._begun: float | None = None
        self._tick = -1

    async def recv(self) -> av.VideoFrame:
        """The next frame, when its time has come. Raises `MediaStreamError` once stopped."""
        now = time.monotonic()
        if self._begun is None:
            self._begun = now
        self._tick = max(self._tick + 1, int((now - self._begun) * self.fps))
        await asyncio.sleep(self._begun + self._tick / self.fps - now)
        if self.readyState != "live":
            raise MediaStreamError
        now = time.monotonic()
        planes = self._scene(len(self.captured), self._size(now - self._begun))
        frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
        frame.pts, frame.time_base = round(self._tick / self.fps / CLOCK), CLOCK
        self.captured.append(now)
        return frame

    def _size(self, since: float) -> Size:
        return next(size for begin, size in reversed(self._sizes) if begin <= since)


def numbers() -> Scene:
    """Each frame shows its own number, before a wall that moves a little."""
    walls: dict[Size, Image] = {}

    def show(number: int, size: Size) -> Image:
        if size not in walls:
            walls.clear()
            walls[size] = _wall(size)
        planes = np.roll(walls[size], number % 64, axis=1)
        barcode.draw(planes[: size[1]], number % barcode.COUNT)
        return planes

    return show


def footage(path: Path, frames: int = 60) -> Scene:
    """The beginning of a clip, forwards and backwards for ever, in the middle of a grey frame."""
    with open_driving(path) as source:
        pictures = [frame.image for frame in itertools.islice(source, frames)]
    shown: dict[tuple[int, Size], Image] = {}

    def show(number: int, size: Size) -> Image:
        turn = number % (2 * len(pictures) - 2)
        place = min(turn, 2 * len(pictures) - 2 - turn)
        if (place, size) not in shown:
            shown[place, size] = _planes(_framed(pictures[place], size))
        return shown[place, size]

    return show


def _wall(size: Size) -> Image:
    width, height = size
    bricks = np.random.default_rng(5).integers(60, 160, (9, 16), dtype=np.uint8)
    planes = np.full((height * 3 // 2, width), 128, np.uint8)
    planes[:height] = cv2.resize(bricks, size, interpolation=cv2.INTER_CUBIC)
    return planes


def _framed(picture: Image, size: Size) -> Image:
    width, height = size
    scale = min(width / picture.shape[1], height / picture.shape[0])
    small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    framed = np.full((height, width, 3), 128, np.uint8)
    top, left = (height - small.shape[0]) // 2, (width - small.shape[1]) // 2
    framed[top : top + small.shape[0], left : left + small.shape[1]] = small
    return framed


def _planes(image: Image) -> Image:
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2YUV_I420), np.uint8)
