"""A stranger's pipeline, found as any other: it answers every driving frame with that frame's mean colour.

It has all that makes pipelines hard to drive: chunks of exactly four frames, a delay of three, and two
lead-in frames before the first.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

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

LEAD_IN = 2


class EchoParameters(RunParameters):
    gain: float = Field(1.0, ge=0.0, le=2.0, description="Factor on the colour.")
    motion: str = Field("relative", description="Has no effect on an echo.")
    pause: float = Field(0.0, ge=0.0, description="Seconds that every step takes.")
    fail_at: int | None = Field(None, description="Break down at this frame.")


@dataclass(frozen=True, eq=False)
class EchoReference(Reference):
    id: str
    image: Image
    face: DetectedFace | None = None


class EchoSession(Session[EchoParameters]):
    def __init__(self, pipeline: EchoPipeline, reference: Reference, parameters: EchoParameters) -> None:
        self._info = pipeline.info
        self._parameters = parameters
        self._shape = reference.image.shape
        self._inside: list[tuple[Image, float, FrameState]] = []
        self._taken = 0
        self.closed = False

    @property
    def parameters(self) -> EchoParameters:
        return self._parameters

    def step(self, chunk: FrameChunk) -> AnimatedChunk:
        if self.closed:
            raise SessionClosedError("This session is closed.")
        if self._info.exact_chunks and len(chunk) != self._info.chunk_frames:
            raise ValueError(f"a chunk has {self._info.chunk_frames} frames, not {len(chunk)}")
        time.sleep(self._parameters.pause)
        if not self._taken:
            self._inside += [(np.zeros(self._shape, np.uint8), 0.0, FrameState.TRANSITION)] * LEAD_IN
        for image, at in zip(chunk.images, chunk.times, strict=True):
            if self._taken == self._parameters.fail_at:
                raise RuntimeError("broke down as told")
            colour = np.clip(image.mean((0, 1)) * self._parameters.gain, 0, 255)
            state = FrameState.ANIMATED if image.any() else FrameState.HELD
            self._inside.append((np.full(self._shape, np.rint(colour), np.uint8), float(at), state))
            self._taken += 1
        return self._out(max(len(self._inside) - self._info.delay_frames, 0))

    def flush(self) -> AnimatedChunk | None:
        return self._out(len(self._inside)) if self._inside else None

    def _out(self, count: int) -> AnimatedChunk:
        out, self._inside = self._inside[:count], self._inside[count:]
        images = np.stack([image for image, _, _ in out]) if out else np.empty((0, *self._shape), np.uint8)
        return AnimatedChunk(
            images, np.array([at for _, at, _ in out], np.float64), tuple(s for *_, s in out)
        )

    def update(self, parameters: EchoParameters) -> None:
        self._parameters = parameters

    def switch_reference(self, reference: Reference) -> None:
        self._shape = reference.image.shape

    def reset(self) -> None:
        self._inside, self._taken = [], 0

    def close(self) -> None:
        self.closed = True


class EchoPipeline(Pipeline[LoadParameters, EchoParameters]):
    info: PipelineInfo = PipelineInfo(
        id="echo",
        name="echo",
        description="Answers with mean colours.",
        chunk_frames=4,
        exact_chunks=True,
        delay_frames=3,
    )
    run_parameters = EchoParameters

    def __init__(self, parameters: LoadParameters) -> None:
        self._parameters = parameters

    @classmethod
    def availability(cls) -> Availability:
        return Availability(True, "it only echoes")

    @classmethod
    def load(cls, parameters: LoadParameters, report: LoadProgressCallback | None = None) -> EchoPipeline:
        return cls(parameters)

    @property
    def parameters(self) -> LoadParameters:
        return self._parameters

    def fuse(
        self, image: Image, *, allow_no_face: bool = False, face_box: Box | None = None
    ) -> EchoReference:
        del face_box  # it looks for no face
        if not image.any() and not allow_no_face:
            raise NoFaceError("All is black.")
        assert image.shape == (self._parameters.height, self._parameters.width, 3)
        return EchoReference("echo", image)

    def open_session(
        self, reference: Reference, parameters: EchoParameters | None = None, *, seed: int | None = None
    ) -> EchoSession:
        return EchoSession(self, reference, parameters or EchoParameters())

    def close(self) -> None:
        pass


class MissingPipeline(EchoPipeline):
    info: PipelineInfo = PipelineInfo(
        id="missing", name="missing", description="Lacks its weights.", chunk_frames=1
    )

    @classmethod
    def availability(cls) -> Availability:
        return Availability(False, "its weights are missing.", "Run `download_models --pipeline missing`.")


def not_a_pipeline() -> None:
    """Registered by mistake."""
