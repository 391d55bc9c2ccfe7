"""What a pipeline's process is asked and what it answers. `Request[T]` is answered by a `RequestResult` with a T.

Sessions, references and frames have numbers that the asking side chooses. `Notification`s are not answered. Failures of a
notice show at the next step of its session.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

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
    """Asks for a T."""


class Notification:
    """Says something and waits for nothing."""


@dataclass(frozen=True, slots=True)
class LoadedPipeline:
    """What a pipeline says of itself once it is loaded."""

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
    """A fused reference as its owner sees it."""

    id: str
    image: Image
    face: DetectedFace | None


@dataclass(frozen=True, slots=True, eq=False)
class FuseReference(Request[FusedReferenceInfo]):
    """Fuse a portrait, uint8 RGB (H, W, 3), as number `reference`."""

    reference: int
    image: Image
    allow_no_face: bool


@dataclass(frozen=True, slots=True)
class ReleaseReference(Notification):
    """Nobody uses that reference any more; sessions on it keep it."""

    reference: int


@dataclass(frozen=True, slots=True)
class OpenedSession:
    """The run parameters in force, and whether `FramePrepared` will tell which frames the session has looked at."""

    parameters: RunParameters
    prepares_frames: bool


@dataclass(frozen=True, slots=True)
class OpenSession(Request[OpenedSession]):
    """Open number `session`."""

    session: int
    reference: int
    parameters: RunParameters | None
    seed: int | None


@dataclass(frozen=True, slots=True, eq=False)
class PrepareFrame(Notification):
    """A driving frame of a session: kept for its step, and looked at meanwhile."""

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
    """A session has looked at the frame of that time, and at all before it. From the pipeline's process."""

    session: int
    time: float


@dataclass(frozen=True, slots=True)
class StepResult:
    """A session's step that is done: all of an `AnimatedChunk` but the frames, which follow as `StepFrames`.

    `figures`: the pipeline's own counts.
    """

    times: NDArray[np.float64]
    states: tuple[FrameState, ...]
    seconds: float
    figures: dict[str, float]


@dataclass(frozen=True, slots=True)
class SessionChunk:
    """What to step a session by: prepared frames, by their times. `frames_number` is that of the frames made of them."""

    session: int
    times: tuple[float, ...]
    frames_number: int


@dataclass(frozen=True, slots=True)
class StepSessions(Request[list[StepResult]]):
    """Step sessions together."""

    chunks: tuple[SessionChunk, ...]


@dataclass(frozen=True, slots=True, eq=False)
class StepFrames:
    """The frames of a step, uint8 RGB (frames, height, width, 3), some time after it was answered."""

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
    """How far a load is."""

    stage: str
    fraction: float


@dataclass(frozen=True, slots=True)
class RequestResult:
    """The answer to a request; `gpu_memory_bytes` in bytes is what tensors hold of the device."""

    value: Any
    gpu_memory_bytes: int


@dataclass(frozen=True, slots=True)
class RequestFailure:
    """A request raised `error`. `fatal`: nothing works any more, and the process ends."""

    error: Exception
    fatal: bool
