"""A stranger's pipeline that takes its time, as a GPU does, and shows what it was given.

Its frames are the driving frames themselves, cut and resized to the loaded size: a number drawn into a frame can be
read on the other side, so a server's delay can be measured through it. Chunks, delay and speed are set on loading.
"""

from __future__ import annotations

import hashlib
import time
from collections import deque
from dataclasses import dataclass, replace

import cv2
import numpy as np
from pydantic import Field

from personalive.errors import NoFaceError, SessionClosedError
from personalive.face.face import Box
from personalive.media.types import Image
from personalive.pipelines.base import (
    AnimatedChunk,
    Availability,
    DetectedFace,
    FrameChunk,
    FrameState,
    LoadParameters,
    LoadProgressCallback,
    Pipeline,
    PipelineInfo,
    Reference,
    RunParameters,
    Session,
)


class OutOfMemoryError(RuntimeError):
    """Named as PyTorch's, which is known by its name where PyTorch is not."""


class PacedLoadParameters(LoadParameters):
    chunk_frames: int = Field(1, ge=1, le=16, description="Frames of a step.")
    delay_frames: int = Field(0, ge=0, le=64, description="Frames by which the output trails.")
    cost: float = Field(0.0, ge=0.0, le=10.0, description="Seconds that a frame takes.")
    loading: float = Field(0.0, ge=0.0, le=60.0, description="Seconds that loading takes.")


class PacedParameters(RunParameters):
    gain: float = Field(1.0, ge=0.0, le=2.0, description="Factor on the brightness.")
    pause: float = Field(0.0, ge=0.0, le=1.0, description="Seconds that a step takes longer.")
    fail_at: int | None = Field(None, ge=0, description="Break down at this frame.")
    oom_at: int | None = Field(None, ge=0, description="Run out of memory at this frame.")


@dataclass(frozen=True, eq=False)
class PacedReference(Reference):
    id: str
    image: Image
    face: DetectedFace | None


Shown = tuple[Image, float, FrameState]


class PacedSession(Session[PacedParameters]):
    def __init__(self, load: PacedLoadParameters, reference: Reference, parameters: PacedParameters) -> None:
        self._load = load
        self._reference = reference
        self._parameters = parameters
        self._inside: deque[Shown] = deque()
        self._taken = 0
        self.closed = False

    @property
    def parameters(self) -> PacedParameters:
        return self._parameters

    @property
    def delay_frames(self) -> int:
        return self._load.delay_frames

    def step(self, chunk: FrameChunk) -> AnimatedChunk:
        begun = time.perf_counter()
        if self.closed:
            raise SessionClosedError("This session is closed.")
        if len(chunk) != self._load.chunk_frames:
            raise ValueError(f"a chunk has {self._load.chunk_frames} frames, not {len(chunk)}")
        if not self._inside and not self._taken:
            lead_in = (self._reference.image, float(chunk.times[0]), FrameState.TRANSITION)
            self._inside.extend([lead_in] * self._load.delay_frames)
        for image, at in zip(chunk.images, chunk.times, strict=True):
            self._break_down()
            self._inside.append((self._shown(image), float(at), FrameState.ANIMATED))
            self._taken += 1
        made = _chunk([self._inside.popleft() for _ in range(len(chunk))])
        until = begun + self._load.cost * len(chunk) + self._parameters.pause
        time.sleep(max(until - time.perf_counter(), 0))
        return made

    def flush(self) -> AnimatedChunk | None:
        rest = list(self._inside)
        self.reset()
        return _chunk(rest) if rest else None

    def update(self, parameters: PacedParameters) -> None:
        self._parameters = parameters

    def switch_reference(self, reference: Reference) -> None:
        self._reference = reference
        self.reset()

    def reset(self) -> None:
        self._inside.clear()
        self._taken = 0

    def close(self) -> None:
        self.closed = True

    def _break_down(self) -> None:
        if self._taken == self._parameters.fail_at:
            raise RuntimeError("broke down as told")
        if self._taken == self._parameters.oom_at:
            raise OutOfMemoryError("out of memory as told")

    def _shown(self, image: Image) -> Image:
        cut = _middle(image, self._load.width / self._load.height)
        sized = cv2.resize(cut, (self._load.width, self._load.height), interpolation=cv2.INTER_AREA)
        if self._parameters.gain != 1:
            sized = cv2.convertScaleAbs(sized, alpha=self._parameters.gain)
        return sized.astype(np.uint8, copy=False)


class PacedPipeline(Pipeline[PacedLoadParameters, PacedParameters]):
    info: PipelineInfo = PipelineInfo(
        id="paced",
        name="paced",
        description="Shows the driving frames, as fast as it is told.",
        chunk_frames=1,
    )
    load_parameters = PacedLoadParameters
    run_parameters = PacedParameters

    def __init__(self, parameters: PacedLoadParameters) -> None:
        self._parameters = parameters
        self.info = replace(
            type(self).info,
            chunk_frames=parameters.chunk_frames,
            exact_chunks=True,
            delay_frames=parameters.delay_frames,
        )

    @classmethod
    def availability(cls) -> Availability:
        return Availability(True, "it needs nothing")

    @classmethod
    def load(
        cls, parameters: PacedLoadParameters, report: LoadProgressCallback | None = None
    ) -> PacedPipeline:
        for tenth in range(10):
            if report is not None:
                report("waiting", tenth / 10)
            time.sleep(parameters.loading / 10)
        return cls(parameters)

    @property
    def parameters(self) -> PacedLoadParameters:
        return self._parameters

    def fuse(
        self, image: Image, *, allow_no_face: bool = False, face_box: Box | None = None
    ) -> PacedReference:
        del face_box  # it looks for no face
        if not image.any() and not allow_no_face:
            raise NoFaceError("All is black.")
        width, height = self._parameters.width, self._parameters.height
        sized = cv2.resize(image, (width, height)).astype(np.uint8, copy=False)
        return PacedReference(hashlib.sha256(sized.tobytes()).hexdigest()[:16], sized, None)

    def open_session(
        self, reference: Reference, parameters: PacedParameters | None = None, *, seed: int | None = None
    ) -> PacedSession:
        return PacedSession(self._parameters, reference, parameters or PacedParameters())

    def close(self) -> None:
        pass


def _middle(image: Image, aspect: float) -> Image:
    height, width = image.shape[:2]
    wide, high = min(width, round(height * aspect)), min(height, round(width / aspect))
    left, top = (width - wide) // 2, (height - high) // 2
    return image[top : top + high, left : left + wide]


def _chunk(shown: list[Shown]) -> AnimatedChunk:
    images, times, states = zip(*shown, strict=True)
    return AnimatedChunk(np.stack(images), np.array(times, np.float64), states)
