"""The messages to and from a pipeline's process. The answer to a `Request[T]` is a `RequestResult` with a T.

The server chooses the numbers of sessions, references and frames. `Notification`s are not answered: their failures
show at the next step of the session.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from personalive.face.face import Box
from personalive.media.types import Frames, Image
from personalive.pipelines.base import (
    DetectedFace,
    FrameState,
    LoadParameters,
    PipelineInfo,
    RunParameters,
)
from personalive.server.telemetry.logs import LogFormat

T = TypeVar("T")


class Request(Generic[T]):
    """A request that is answered with a T."""


class Notification:
    """A message without an answer."""


@dataclass(frozen=True, slots=True)
class LoadedPipeline:
    """The properties of a loaded pipeline."""

    info: PipelineInfo
    parameters: LoadParameters
    warnings: tuple[str, ...]
    seconds_per_frame: float | None
    sessions_together: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LoadPipeline(Request[LoadedPipeline]):
    """Load the pipeline class `module:name`. Answered by any number of `LoadProgressUpdate` first."""

    pipeline: str
    parameters: LoadParameters
    log_format: LogFormat
    log_level: str


@dataclass(frozen=True, slots=True, eq=False)
class FusedReferenceInfo:
    """The properties of a fused reference."""

    id: str
    image: Image
    face: DetectedFace | None


@dataclass(frozen=True, slots=True, eq=False)
class FuseReference(Request[FusedReferenceInfo]):
    """Fuse a portrait, uint8 RGB (H, W, 3), as number `reference`; `face_box` is that of `Pipeline.fuse`."""

    reference: int
    image: Image
    allow_no_face: bool
    face_box: Box | None = None


@dataclass(frozen=True, slots=True)
class ReleaseReference(Notification):
    """Release a reference that is no longer used; sessions that animate it keep it."""

    reference: int


@dataclass(frozen=True, slots=True)
class OpenedSession:
    """The run parameters in force, and whether `FramePrepared` will report which frames were prepared."""

    parameters: RunParameters
    prepares_frames: bool


@dataclass(frozen=True, slots=True)
class OpenSession(Request[OpenedSession]):
    """Open the session with the number `session`."""

    session: int
    reference: int
    parameters: RunParameters | None
    seed: int | None


@dataclass(frozen=True, slots=True, eq=False)
class PrepareFrame(Notification):
    """A driving frame of a session, which is kept for its step and prepared meanwhile."""

    session: int
    image: Image
    time: float


@dataclass(frozen=True, slots=True)
class DiscardFrame(Notification):
    """The frame of that time will not be stepped."""

    session: int
    time: float


@dataclass(frozen=True, slots=True)
class FramePrepared(Notification):
    """A session has prepared the frame of that time and all before it. Sent by the pipeline's process."""

    session: int
    time: float


@dataclass(frozen=True, slots=True)
class StepResult:
    """The result of a session's step: an `AnimatedChunk` without its frames, which follow as `StepFrames`.

    `figures`: the pipeline's figures for the session.
    """

    times: NDArray[np.float64]
    states: tuple[FrameState, ...]
    seconds: float
    figures: dict[str, float]


@dataclass(frozen=True, slots=True)
class SessionChunk:
    """The frames of a session's step, by their times. `frames_number` identifies the resulting `StepFrames`."""

    session: int
    times: tuple[float, ...]
    frames_number: int


@dataclass(frozen=True, slots=True)
class StepSessions(Request[list[StepResult]]):
    """Step sessions together."""

    chunks: tuple[SessionChunk, ...]


@dataclass(frozen=True, slots=True, eq=False)
class StepFrames:
    """The frames of a step, uint8 RGB (frames, height, width, 3), sent some time after its answer."""

    number: int
    images: Frames


@dataclass(frozen=True, slots=True)
class CallSession(Request[Any]):
    """Call a method of a session that needs no frame: flush, update, reset, snapshot, restore or close."""

    session: int
    method: str
    arguments: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class SwitchReference(Request[None]):
    """Let a session animate another reference."""

    session: int
    reference: int


@dataclass(frozen=True, slots=True)
class ClosePipeline(Request[None]):
    """Close the pipeline and end the process."""


@dataclass(frozen=True, slots=True)
class LoadProgressUpdate:
    """The progress of a load."""

    stage: str
    fraction: float


@dataclass(frozen=True, slots=True)
class RequestResult:
    """The answer to a request. `gpu_memory_bytes` is the device memory that tensors hold."""

    value: Any
    gpu_memory_bytes: int


@dataclass(frozen=True, slots=True)
class RequestFailure:
    """The answer to a request that raised `error`. `fatal`: the pipeline is broken, and the process ends."""

    error: Exception
    fatal: bool
