"""A session of the PersonaLive pipeline, which takes chunks of driving frames and returns animated frames.

The output trails the input by most of a window, in the same order. A session begins with the first face it sees;
until then it returns the still reference. Its first animated frames are a transition from the reference's own pose
and belong to no driving frame.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import override

from personalive.errors import InputError, SessionClosedError
from personalive.face.choice import FaceChoice, parse_face_choice
from personalive.media.types import Frames, Image
from personalive.pipelines.base import AnimatedChunk, FrameChunk, FrameState, Reference, Session
from personalive.pipelines.diffusion import snapshots
from personalive.pipelines.diffusion.device.pinned_copy import to_host
from personalive.pipelines.diffusion.motion.driving_motion import DrivingMotion
from personalive.pipelines.diffusion.parameters import PersonaLiveRunParameters
from personalive.pipelines.diffusion.sampling.engine import (
    DiffusionEngine,
    DrivingFrames,
    SessionState,
    StepInput,
    StepOutput,
    Trace,
    to_driving_frames,
)
from personalive.pipelines.diffusion.sampling.noise import NoiseSource, SeededNoise
from personalive.pipelines.diffusion.sampling.reference import FusedReference
from personalive.pipelines.diffusion.stages.motion_features import MotionFeatures, repeat_last
from personalive.pipelines.diffusion.tracking.driver_tracker import DriverTracker
from personalive.pipelines.prefetch import Prefetcher

FrameLabel = tuple[float, FrameState]
"""The label of an output frame: the driving frame's time, and the frame's state."""


class PersonaLiveSession(Session[PersonaLiveRunParameters]):
    """One driver animating one reference.

    `noise` makes a new noise source whenever the session starts; `weights` is the hash of the pipeline's weights.
    """

    def __init__(
        self,
        engine: DiffusionEngine,
        reference: FusedReference,
        parameters: PersonaLiveRunParameters,
        noise: Callable[[], NoiseSource],
        weights: str,
        trace: Trace | None = None,
    ) -> None:
        self._weights_hash = weights
        self._engine: DiffusionEngine | None = engine
        size = (engine.parameters.width, engine.parameters.height)
        if reference.image.shape[1::-1] != size:
            raise InputError("The reference was fused for another size than this pipeline's.")
        self._parameters = parameters
        self._reference = reference
        self._make_noise = noise
        self._trace = trace
        self._detects = engine.parameters.face_detection
        self._driver = DriverTracker(size, detect=self._detects, choice=self._parse_choice(parameters))
        self._tracker = Prefetcher(self._driver)
        self._start(engine)

    def _start(self, engine: DiffusionEngine) -> None:
        self._noise = self._make_noise()
        first = self._noise.draw(engine.noise_shape(engine.scheduler.initial_frames))
        self._state: SessionState = engine.start_session(self._reference, first)
        self._pending: deque[FrameLabel] = deque()
        self._next_noise: Tensor | None = None

    @property
    @override
    def parameters(self) -> PersonaLiveRunParameters:
        return self._parameters

    @property
    @override
    def delay_frames(self) -> int:
        return self._require_engine().parameters.delay_frames

    @override
    def prepare(self, image: Image, time: float) -> None:
        self._require_engine()
        self._tracker.prepare(image, time)

    @override
    def discard(self, time: float) -> None:
        self._tracker.discard(time)

    @override
    def step(self, chunk: FrameChunk) -> AnimatedChunk:
        return step_sessions([self], [chunk])[0]

    def step_motion(self, motion: DrivingMotion) -> AnimatedChunk:
        """Animate one chunk of frames by a motion that was extracted before.

        Raises `InputError` for a motion of another length than a chunk, or one that other weights extracted.
        """
        if motion.weights != self._weights_hash:
            raise InputError("This motion was extracted with other weights: extract it again.")
        engine = self._require_engine()
        output = engine.step([self._prepare_input(engine, motion)])[0]
        return self._make_chunk(motion.times, output, _fetch_images(output))

    @override
    def flush(self) -> AnimatedChunk | None:
        engine = self._require_engine()
        if self._state.driver is None:
            return None
        rest, size = len(self._pending), engine.scheduler.chunk_frames
        images: list[Frames] = []
        shown: list[FrameLabel] = []
        while len(shown) < rest:
            assert self._state.driver is not None
            output = engine.step([self._make_input(engine, repeat_last(self._state.driver, size))])[0]
            assert output is not None
            images.append(to_host(output.images)().numpy().copy())
            shown += self._advance(output, [(0.0, FrameState.HELD)] * size)
        self.reset()
        if not rest:
            return None
        times, states = zip(*shown[:rest], strict=True)
        return AnimatedChunk(np.concatenate(images)[:rest], np.array(times, np.float64), states)

    @override
    def update(self, parameters: PersonaLiveRunParameters) -> None:
        self._driver.choose(self._parse_choice(parameters))
        self._parameters = parameters

    @override
    def switch_reference(self, reference: Reference) -> None:
        engine, own = self._require_engine(), require_reference(reference)
        if own.image.shape != self._reference.image.shape:
            raise InputError("The new reference was fused for another size than this session's.")
        self._reference = own
        self._start(engine)

    @override
    def reset(self) -> None:
        engine = self._require_engine()
        self._tracker.reset()
        self._start(engine)

    @override
    def snapshot(self) -> bytes:
        self._require_engine()
        return snapshots.serialize(
            snapshots.Snapshot(
                reference=self._reference.id,
                state=self._state,
                parameters=self._parameters,
                pending=tuple(self._pending),
                noise=self._noise.state(),
                next_noise=self._next_noise,
                tracker=self._tracker.save_state(),
            )
        )

    @override
    def restore(self, snapshot: bytes) -> None:
        engine = self._require_engine()
        kept = snapshots.deserialize(snapshot, engine.components, self._reference)
        delay = 0 if kept.state.driver is None else engine.parameters.delay_frames
        window = engine.noise_shape(engine.scheduler.initial_frames)
        if len(kept.pending) != delay or kept.state.window.latents.shape != window:
            raise InputError("This snapshot is of a session with another window or latency.")
        self._state, self._parameters = kept.state, kept.parameters
        self._pending = deque(kept.pending)
        self._noise.restore(kept.noise)
        self._next_noise = kept.next_noise
        self._driver.choose(self._parse_choice(kept.parameters))
        self._tracker.restore_state(kept.tracker)

    @override
    def stats(self) -> Mapping[str, float]:
        return {"keyframes": len(self._state.window.keyframes)}

    @override
    def close(self) -> None:
        self._tracker.close()
        self._engine = None

    @property
    def closed(self) -> bool:
        """Whether the session was closed."""
        return self._engine is None

    def _parse_choice(self, parameters: PersonaLiveRunParameters) -> FaceChoice:
        """Return which face of the driving frames is followed. Raises `InputError` where none is looked for."""
        choice = parse_face_choice(parameters.driver_face)
        if not (self._detects or choice.is_auto):
            raise InputError("driver_face needs face_detection, which this pipeline was loaded without.")
        return choice

    def _require_engine(self) -> DiffusionEngine:
        if self._engine is None:
            raise SessionClosedError("This session is closed.")
        return self._engine

    def _prepare_input(self, engine: DiffusionEngine, chunk: FrameChunk | DrivingMotion) -> StepInput:
        """Return a step's input. Raises `InputError` for a chunk of another length than the pipeline's."""
        size = engine.scheduler.chunk_frames
        if len(chunk) != size:
            raise InputError(f"This pipeline takes chunks of {size} frames, not {len(chunk)}.")
        if isinstance(chunk, DrivingMotion):
            return self._make_input(
                engine, chunk.to_features(engine.components.device, engine.components.dtype)
            )
        pairs = zip(chunk.images, chunk.times.tolist(), strict=True)
        tracked = [self._tracker.get(image, time) for image, time in pairs]
        return self._make_input(engine, to_driving_frames(tracked, engine.components.device))

    def _make_input(self, engine: DiffusionEngine, driving: DrivingFrames | MotionFeatures) -> StepInput:
        if self._next_noise is None:
            self._next_noise = self._noise.draw(engine.noise_shape(engine.scheduler.chunk_frames))
        return StepInput(
            reference=self._reference,
            state=self._state,
            driving=driving,
            noise=self._next_noise,
            parameters=self._parameters,
            trace=self._trace,
        )

    def _make_chunk(
        self, times: NDArray[np.float64], output: StepOutput | None, images: Callable[[], Tensor]
    ) -> AnimatedChunk:
        """Return a step's frames with their times and states; calling `images` waits for the frames."""
        if output is None:
            still = np.repeat(self._reference.image[None], len(times), axis=0)
            return AnimatedChunk(still, times, (FrameState.WAITING,) * len(times))
        states = (FrameState.ANIMATED if valid else FrameState.HELD for valid in output.valid.tolist())
        shown = self._advance(output, list(zip(map(float, times), states, strict=True)))
        leaving, kinds = zip(*shown, strict=True)
        # Copied, since page-locked memory is scarce and a caller may keep frames for long.
        return AnimatedChunk(images().numpy().copy(), np.array(leaving, np.float64), kinds)

    def _advance(self, output: StepOutput, entering: list[FrameLabel]) -> list[FrameLabel]:
        """Adopt a step's state, queue the labels of frames that entered, and return those of frames that left."""
        engine = self._require_engine()
        if self._state.driver is None:
            begin = (entering[0][0], FrameState.TRANSITION)
            self._pending.extend([begin] * engine.parameters.delay_frames)
        self._pending.extend(entering)
        self._state, self._next_noise = output.state, None
        return [self._pending.popleft() for _ in entering]


def step_sessions(
    sessions: Sequence[PersonaLiveSession], chunks: Sequence[FrameChunk]
) -> list[AnimatedChunk]:
    """Step sessions of one pipeline in one call of its networks; each result equals that of stepping it alone."""
    if len({id(session) for session in sessions}) < len(sessions):
        raise InputError("A session can be stepped only once at a time.")
    if not sessions:
        return []
    engine = sessions[0]._require_engine()
    if any(session._require_engine() is not engine for session in sessions):
        raise InputError("Only sessions of one pipeline can be stepped together.")
    pairs = list(zip(sessions, chunks, strict=True))
    outputs = engine.step([session._prepare_input(engine, chunk) for session, chunk in pairs])
    fetched = [_fetch_images(output) for output in outputs]
    return [
        session._make_chunk(chunk.times, output, images)
        for (session, chunk), output, images in zip(pairs, outputs, fetched, strict=True)
    ]


def _fetch_images(output: StepOutput | None) -> Callable[[], Tensor]:
    """Start to copy a step's frames to the host; the function returned waits for them."""
    return to_host(torch.empty(0) if output is None else output.images)


def require_reference(reference: Reference) -> FusedReference:
    """Return the reference if this pipeline fused it. Raises `InputError` for another pipeline's."""
    if not isinstance(reference, FusedReference):
        raise InputError("This reference was fused by another pipeline. Fuse the image with this one.")
    return reference


def make_noise_factory(seed: int) -> Callable[[], NoiseSource]:
    """Return a function that makes noise sources with that seed, which all draw the same noise."""
    return cast("Callable[[], NoiseSource]", lambda: SeededNoise(seed))
