"""Drivers and portraits that cost nothing: blurred noise, a seed each."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from personalive.media.types import Frames, Image, VideoFrame
from personalive.pipelines.base import AnimatedChunk, FrameChunk, FrameState
from personalive.pipelines.diffusion.motion.driving_motion import DrivingMotion
from personalive.pipelines.diffusion.session import PersonaLiveSession

SIDE, CHUNK, FPS = 64, 4, 25.0
GREY = np.full((SIDE, SIDE, 3), 128, np.uint8)


def picture(seed: int, height: int = SIDE, width: int = SIDE) -> Image:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    blurred = cv2.GaussianBlur(noise, (0, 0), 4).astype(np.float32)
    return np.clip(128 + 5 * (blurred - 128), 0, 255).astype(np.uint8)


def frames(driver: int, count: int, begin: int = 0) -> Frames:
    return np.stack([picture(1000 * driver + index) for index in range(begin, begin + count)])


def chunk(driver: int, index: int) -> FrameChunk:
    """The chunk of that index of a driver's endless clip, 25 frames per second."""
    begin = CHUNK * index
    return FrameChunk(frames(driver, CHUNK, begin), np.arange(begin, begin + CHUNK) / FPS)


def video(driver: int, count: int) -> list[VideoFrame]:
    images = frames(driver, count)
    return [VideoFrame(image, index / FPS, index, 1 / FPS) for index, image in enumerate(images)]


def part(motion: DrivingMotion, index: int) -> DrivingMotion:
    """One chunk of a motion."""
    return motion.select(slice(CHUNK * index, CHUNK * (index + 1)))


def drive(
    session: PersonaLiveSession, motion: DrivingMotion, chunks: Sequence[int] = range(3)
) -> list[AnimatedChunk]:
    return [session.step_motion(part(motion, index)) for index in chunks]


def told(parts: Sequence[AnimatedChunk]) -> tuple[list[float], list[FrameState]]:
    """Times and states of all frames."""
    return [float(time) for one in parts for time in one.times], [s for one in parts for s in one.states]


def content(parts: Sequence[AnimatedChunk]) -> bytes:
    """Pixels, times and states, as bytes to compare."""
    return b"".join(
        one.images.tobytes() + one.times.tobytes() + "".join(one.states).encode() for one in parts
    )
