"""The interface that every pipeline implements.

    parameters → load → fuse(reference) → open a session → chunk of driving frames in, chunk of frames out

A pipeline is loaded once and holds what is expensive (weights, models). Fusing a reference gives an immutable
value that any number of sessions may share. A session owns everything that changes from frame to frame, so
sessions never disturb each other. Command line, server and batch use pipelines only through this interface.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, ClassVar, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from personalive.closing import Closing
from personalive.errors import InputError
from personalive.face.choice import parse_face_choice
from personalive.face.face import Box
from personalive.media.types import Frames, Image

LoadProgressCallback = Callable[[str, float], None]
"""Called with the stage's name and the fraction of the whole that is done, 0…1."""


class Parameters(BaseModel):
    """Base of all parameter sets: immutable, with bounds checked and unknown names rejected."""

    model_config = ConfigDict(extra="forbid", frozen=True)


FrameSide = Annotated[int, Field(ge=256, le=1024, multiple_of=64)]


class LoadParameters(Parameters):
    """Parameters that are fixed when a pipeline is loaded. To change one, load it again."""

    height: FrameSide = Field(512, description="Height of the animated frames in pixels, a multiple of 64.")
    width: FrameSide = Field(512, description="Width of the animated frames in pixels, a multiple of 64.")
    seed: int = Field(42, ge=0, le=2**63 - 1, description="Seed of a session's random numbers.")


class RunParameters(Parameters):
    """Parameters that may change between two chunks of a running session."""


def _normalize_face_choice(value: object) -> str:
    """Return a face's choice as text: JSON has numbers for some."""
    try:
        return str(parse_face_choice(str(value)[:100]))
    except InputError as error:
        raise ValueError(str(error)) from error


DriverFace = Annotated[
    str,
    BeforeValidator(_normalize_face_choice),
    Field(
        description="Whose face is followed where the driving frames show several: auto, largest, left, right, "
        "its number from the left, or x,y in pixels. It is chosen in the first frame that shows it, and then "
        "followed.",
        examples=["auto", "largest", "left", "right", "1", "2", "3", "4"],
    ),
]
"""A run parameter of pipelines that follow one face of the driving frames."""


@dataclass(frozen=True, slots=True)
class PipelineInfo:
    """Description of a pipeline. `chunk_frames` is the best number of frames for one step.

    `exact_chunks`: a step takes exactly that many frames. `delay_frames`: by how many frames the output trails the
    input once a session runs; an offline run flushes them at the end.
    """

    id: str
    name: str
    description: str
    chunk_frames: int
    exact_chunks: bool = False
    delay_frames: int = 0
    generative: bool = False
    """True where a trained generative model makes the pixels, False where the reference's pixels are moved."""


@dataclass(frozen=True, slots=True)
class Availability:
    """Whether a pipeline can run here now; if not, what is missing and the command that fixes it."""

    ready: bool
    reason: str
    remedy: str | None = None

    @property
    def message(self) -> str:
        """The reason and the remedy."""
        return f"{self.reason.rstrip('.')}." + (f" {self.remedy}" if self.remedy else "")


class FrameState(StrEnum):
    """What an output frame shows."""

    ANIMATED = "animated"
    HELD = "held"
    """No face in the driving frame: the last good motion is held."""
    WAITING = "waiting"
    """No face since the session began: the still reference."""
    TRANSITION = "transition"
    """A transition from the reference's own pose to the driver's; belongs to no driving frame."""


@dataclass(frozen=True, slots=True, eq=False)
class FrameChunk:
    """The driving frames of one step.

    `images` uint8 RGB (height, width, 3) each, of one size of 16 px or more; an array (frames, height, width, 3)
    or a sequence of arrays, which saves a copy. `times` float64 (frames,), the source's timestamps in seconds,
    which never decrease.
    """

    images: Frames | Sequence[Image]
    times: NDArray[np.float64]

    def __post_init__(self) -> None:
        shapes = {image.shape for image in self.images}
        if len(shapes) > 1:
            raise ValueError(f"images must have one size, not {sorted(shapes)}")
        if any(image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 for image in self.images):
            raise ValueError(f"images must be uint8 (height, width, 3) each, not {shapes.pop()}")
        if self.times.shape != (len(self.images),):
            raise ValueError(f"{len(self.images)} frames need as many times, not {self.times.shape}")

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True, slots=True, eq=False)
class AnimatedChunk:
    """The frames that a step returned: `images` uint8 RGB (frames, height, width, 3) at the loaded size.

    `times` float64 (frames,): the timestamp of the driving frame that each one shows. `states`: what each frame
    shows. It may hold fewer frames than were given, or none, while a pipeline with a delay fills up. `seconds`: how
    long the step took, where another process ran it.
    """

    images: Frames
    times: NDArray[np.float64]
    states: tuple[FrameState, ...]
    seconds: float | None = None

    def __len__(self) -> int:
        return len(self.times)


@dataclass(frozen=True, slots=True)
class DetectedFace:
    """A face in a reference: `box` (left, top, right, bottom) in the given image's pixels, `score` 0…1."""

    box: tuple[float, float, float, float]
    score: float


class Reference:
    """A fused portrait: immutable, and may be shared by sessions of the pipeline that made it."""

    id: str
    """Hash of the image and of all that fusing depends on: equal ids mean equal references."""
    image: Image
    """The portrait as the pipeline takes it, uint8 RGB (height, width, 3) at the loaded size."""
    face: DetectedFace | None


R = TypeVar("R", bound=RunParameters)


class Session(Closing, Generic[R]):
    """One driver animating one reference. Not thread-safe: one thread steps it at a time."""

    @property
    @abstractmethod
    def parameters(self) -> R:
        """The current run parameters."""

    @property
    def delay_frames(self) -> int:
        """By how many frames the output trails the input once the session runs."""
        return 0

    def prepare(self, image: Image, time: float) -> None:
        """Do the CPU work for a driving frame before its step, such as finding the face.

        `image` uint8 RGB (H, W, 3), `time` in seconds, both as in the later chunk. One thread may prepare frames
        while another steps. Frames are prepared in order, each at most once. A frame that is not prepared before
        its step is prepared within the step.
        """
        del image, time

    @property
    def prepared_until(self) -> float:
        """The time of the newest frame known to be prepared: a step on later frames may wait for them."""
        return math.inf

    def discard(self, time: float) -> None:
        """Drop the prepared frame of that time, which no step will take."""
        del time

    @abstractmethod
    def step(self, chunk: FrameChunk) -> AnimatedChunk:
        """Animate the next driving frames. Raises `SessionClosedError` after `close`."""

    def flush(self) -> AnimatedChunk | None:
        """End the driver and return the frames that are still held back; None where there are none."""
        return None

    @abstractmethod
    def update(self, parameters: R) -> None:
        """Use other run parameters from the next step on."""

    @abstractmethod
    def switch_reference(self, reference: Reference) -> None:
        """Animate another reference from the next step on; frames of the old one are dropped."""

    @abstractmethod
    def reset(self) -> None:
        """Forget the driver: the next step is like the first of a new session."""

    def snapshot(self) -> bytes | None:
        """Return the session's complete state, to be continued later; None where a pipeline does not support it.

        A continued run gives the result of an uninterrupted one that takes a snapshot at the same step.
        """
        return None

    def restore(self, snapshot: bytes) -> None:
        """Continue the session that returned this `snapshot`, on the same reference.

        Raises `InputError` where it does not belong to this session's pipeline and reference.
        """
        del snapshot
        raise InputError("Sessions of this pipeline cannot be continued from a snapshot.")

    def stats(self) -> Mapping[str, float]:
        """Return the pipeline's statistics of the session by name, such as `keyframes`."""
        return {}

    @abstractmethod
    def close(self) -> None:
        """Release what the session holds. May be called twice."""


L = TypeVar("L", bound=LoadParameters)


class Pipeline(Closing, Generic[L, R]):
    """A loaded pipeline. Subclasses name their parameter models in class attributes.

    `info` is an attribute of the class; a loaded pipeline may have another, where parameters decide chunks and
    delay.
    """

    info: PipelineInfo
    load_parameters: ClassVar[type[LoadParameters]] = LoadParameters
    run_parameters: ClassVar[type[RunParameters]] = RunParameters

    @classmethod
    @abstractmethod
    def availability(cls) -> Availability:
        """Return whether it can be loaded on this machine now. Quick: imports nothing heavy, reads no weights."""

    @classmethod
    def availability_with(cls, given: Mapping[str, object]) -> Availability:
        """Return the availability with these load parameters by name, as far as it depends on them."""
        del given
        return cls.availability()

    @classmethod
    @abstractmethod
    def load(cls, parameters: L, report: LoadProgressCallback | None = None) -> Pipeline[L, R]:
        """Load the pipeline. Raises `PipelineUnavailableError` where something is missing."""

    @property
    @abstractmethod
    def parameters(self) -> L:
        """The load parameters."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What may be wrong with the results as the pipeline was loaded, one sentence each."""
        return ()

    @property
    def notes(self) -> tuple[str, ...]:
        """How the pipeline runs on this machine, where that differs from others, one sentence each."""
        return ()

    def seconds_per_frame(self) -> float | None:
        """Return an estimate before the first frame, where frames take long; None where they do not."""
        return None

    @abstractmethod
    def fuse(self, image: Image, *, allow_no_face: bool = False, face_box: Box | None = None) -> Reference:
        """Prepare a portrait, uint8 RGB (H, W, 3) of any size. It is resized to the loaded size, so crop it first.

        With `face_box`, in pixels of the image, the face there is animated, and the box counts as a face where
        none is found in it. It is only given where somebody has chosen the face.

        Raises `NoFaceError` where no face is found, unless allowed.
        """

    @abstractmethod
    def open_session(
        self, reference: Reference, parameters: R | None = None, *, seed: int | None = None
    ) -> Session[R]:
        """Open a session with its own state; `seed` defaults to the loaded one."""

    @property
    def session_batch_size(self) -> int:
        """How many sessions to pass to `step_many`: above 1 only where that is faster than one after the other."""
        return 1

    def step_many(self, sessions: Sequence[Session[R]], chunks: Sequence[FrameChunk]) -> list[AnimatedChunk]:
        """Step several sessions, in one batch where the pipeline can, with the same result as one by one."""
        return [session.step(chunk) for session, chunk in zip(sessions, chunks, strict=True)]

    @property
    def queues_steps(self) -> bool:
        """Whether `submit_steps` returns at once and runs the steps in the background."""
        return False

    def submit_steps(
        self, sessions: Sequence[Session[R]], chunks: Sequence[FrameChunk]
    ) -> Future[list[AnimatedChunk]]:
        """Return a future for the result of `step_many`, or its exception; steps run in the order of the calls.

        A pipeline that does not queue steps has run them when this returns.
        """
        future: Future[list[AnimatedChunk]] = Future()
        try:
            future.set_result(self.step_many(sessions, chunks))
        except Exception as error:
            future.set_exception(error)
        return future

    @abstractmethod
    def close(self) -> None:
        """Release what the pipeline holds. Its sessions must be closed first."""
