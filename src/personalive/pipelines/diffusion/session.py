"""A session of the PersonaLive pipeline: chunks of driving frames in, animated frames out, a window behind.

Frames leave in the order they came. A session begins with the first face it sees; until then the still reference
is shown. Its first frames out are a transition from the reference's own pose, which belongs to no driving frame.
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
from personalive.media.types import Frames, Image
from personalive.pipelines.base import AnimatedChunk, FrameChunk, FrameState, Reference, Session
from personalive.pipelines.diffusion import snapshots
from personalive.pipelines.diffusion.device.pinned_copy import to_host
from personalive.pipelines.diffusion.motion.driving_motion import DrivingMotion
from personalive.pipelines.diffusion.parameters import PersonaLiveRunParameters
from personalive.pipelines.diffusion.sampling.engine import (
    Engine,
    Look,
    SessionState,
    StepInput,
    StepOutput,
    Trace,
    looked_at,
)
from personalive.pipelines.diffusion.sampling.noise import NoiseSource, SeededNoise
from personalive.pipelines.diffusion.sampling.reference import FusedReference
from personalive.pipelines.diffusion.stages.motion_features import Perceived, unseen
from personalive.pipelines.diffusion.tracking.driver_tracker import DriverTracker
from personalive.pipelines.prefetch import Prefetch

Shown = tuple[float, FrameState]
"""What an output frame will say of itself: the driving frame's time, and its state."""


class PersonaLiveSession(Session[PersonaLiveRunParameters]):
    """One driver animating one reference.

    `noise` makes a fresh source for a session's beginning; `weights` is the hash of the pipeline's.
    """

    def __init__(
        self,
        engine: Engine,
        reference: FusedReference,
        parameters: PersonaLiveRunParameters,
        noise: Callable[[], NoiseSource],
        weights: str,
        trace: Trace | None = None,
    ) -> None:
        self._weights = weights
        self._engine: Engine | None = engine
        size = (engine.parameters.width, engine.parameters.height)
        if reference.image.shape[1::-1] != size:
            raise InputError("The reference was fused for another size than this pipeline's.")
        self._parameters = parameters
        self._reference = reference
        self._make_noise = noise
        self._trace = trace
        self._tracker = Prefetch(DriverTracker(size, detect=engine.parameters.face_detection))
        self._begin(engine)

    def _begin(self, engine: Engine) -> None:
        self._noise = self._make_noise()
        first = self._noise.draw(engine.noise_shape(engine.schedule.padding))
        self._state: SessionState = engine.start(self._reference, first)
        self._waiting: deque[Shown] = deque()
        self._next_noise: Tensor | None = None

    @property
    @override
    def parameters(self) -> PersonaLiveRunParameters:
        return self._parameters

    @property
    @override
    def delay_frames(self) -> int:
        return self._running().parameters.delay_frames

    @override
    def prepare(self, image: Image, time: float) -> None:
        self._running()
        self._tracker.prepare(image, time)

    @override
    def discard(self, time: float) -> None:
        self._tracker.discard(time)

    @override
    def step(self, chunk: FrameChunk) -> AnimatedChunk:
        return step_together([self], [chunk])[0]

    def step_motion(self, motion: DrivingMotion) -> AnimatedChunk:
        """Animate the next frames by a motion that was extracted before: as many as a chunk has.

        Raises `InputError` for another number, or a motion that other networks extracted.
        """
        if motion.weights != self._weights:
            raise InputError("This motion was extracted with other weights: extract it again.")
        engine = self._running()
        output = engine.step([self._look(engine, motion)])[0]
        return self._show(motion.times, output, _fetched(output))

    @override
    def flush(self) -> AnimatedChunk | None:
        engine = self._running()
        if self._state.driver is None:
            return None
        rest, size = len(self._waiting), engine.schedule.chunk_frames
        images: list[Frames] = []
        shown: list[Shown] = []
        while len(shown) < rest:
            assert self._state.driver is not None
            output = engine.step([self._input(engine, unseen(self._state.driver, size))])[0]
            assert output is not None
            images.append(to_host(output.images)().numpy().copy())
            shown += self._take(output, [(0.0, FrameState.HELD)] * size)
        self.reset()
        if not rest:
            return None
        times, states = zip(*shown[:rest], strict=True)
        return AnimatedChunk(np.concatenate(images)[:rest], np.array(times, np.float64), states)

    @override
    def update(self, parameters: PersonaLiveRunParameters) -> None:
        self._parameters = parameters

    @override
    def switch_reference(self, reference: Reference) -> None:
        engine, own = self._running(), own_reference(reference)
        if own.image.shape != self._reference.image.shape:
            raise InputError("The new reference was fused for another size than this session's.")
        self._reference = own
        self._begin(engine)

    @override
    def reset(self) -> None:
        engine = self._running()
        self._tracker.reset()
        self._begin(engine)

    @override
    def snapshot(self) -> bytes:
        self._running()
        return snapshots.save(
            snapshots.Snapshot(
                reference=self._reference.id,
                state=self._state,
                parameters=self._parameters,
                waiting=tuple(self._waiting),
                noise=self._noise.state(),
                next_noise=self._next_noise,
                watch=self._tracker.pause(),
            )
        )

    @override
    def restore(self, snapshot: bytes) -> None:
        engine = self._running()
        kept = snapshots.load(snapshot, engine.models, self._reference)
        delay = 0 if kept.state.driver is None else engine.parameters.delay_frames
        window = engine.noise_shape(engine.schedule.padding)
        if len(kept.waiting) != delay or kept.state.window.latents.shape != window:
            raise InputError("This snapshot is of a session with another window or latency.")
        self._state, self._parameters = kept.state, kept.parameters
        self._waiting = deque(kept.waiting)
        self._noise.restore(kept.noise)
        self._next_noise = kept.next_noise
        self._tracker.resume(kept.watch)

    @override
    def figures(self) -> Mapping[str, float]:
        return {"keyframes": len(self._state.window.keyframes)}

    @override
    def close(self) -> None:
        self._tracker.close()
        self._engine = None

    @property
    def closed(self) -> bool:
        """Whether it holds nothing any more."""
        return self._engine is None

    def _running(self) -> Engine:
        if self._engine is None:
            raise SessionClosedError("This session is closed.")
        return self._engine

    def _look(self, engine: Engine, chunk: FrameChunk | DrivingMotion) -> StepInput:
        """One step's input. Raises `InputError` for a chunk of another length than the pipeline's."""
        size = engine.schedule.chunk_frames
        if len(chunk) != size:
            raise InputError(f"This pipeline takes chunks of {size} frames, not {len(chunk)}.")
        if isinstance(chunk, DrivingMotion):
            return self._input(engine, chunk.perceived(engine.models.device, engine.models.dtype))
        pairs = zip(chunk.images, chunk.times.tolist(), strict=True)
        tracked = [self._tracker.look(image, time) for image, time in pairs]
        return self._input(engine, looked_at(tracked, engine.models.device))

    def _input(self, engine: Engine, driving: Look | Perceived) -> StepInput:
        if self._next_noise is None:
            self._next_noise = self._noise.draw(engine.noise_shape(engine.schedule.chunk_frames))
        return StepInput(
            reference=self._reference,
            state=self._state,
            driving=driving,
            noise=self._next_noise,
            parameters=self._parameters,
            trace=self._trace,
        )

    def _show(
        self, times: NDArray[np.float64], output: StepOutput | None, images: Callable[[], Tensor]
    ) -> AnimatedChunk:
        """What a step on frames of those times gave, with what each frame shows; `images` waits for its frames."""
        if output is None:
            still = np.repeat(self._reference.image[None], len(times), axis=0)
            return AnimatedChunk(still, times, (FrameState.WAITING,) * len(times))
        states = (FrameState.ANIMATED if valid else FrameState.HELD for valid in output.valid.tolist())
        shown = self._take(output, list(zip(map(float, times), states, strict=True)))
        leaving, kinds = zip(*shown, strict=True)
        # A copy of their own: page-locked memory is scarce, and a caller may keep frames for long.
        return AnimatedChunk(images().numpy().copy(), np.array(leaving, np.float64), kinds)

    def _take(self, output: StepOutput, entering: list[Shown]) -> list[Shown]:
        """Take over a step's state; what entered the window goes behind what waits, and as many leave."""
        engine = self._running()
        if self._state.driver is None:
            begin = (entering[0][0], FrameState.TRANSITION)
            self._waiting.extend([begin] * engine.parameters.delay_frames)
        self._waiting.extend(entering)
        self._state, self._next_noise = output.state, None
        return [self._waiting.popleft() for _ in entering]


def step_together(
    sessions: Sequence[PersonaLiveSession], chunks: Sequence[FrameChunk]
) -> list[AnimatedChunk]:
    """Step sessions of one pipeline in one call of its networks; each gets what stepping it alone would give."""
    if len({id(session) for session in sessions}) < len(sessions):
        raise InputError("A session can be stepped only once at a time.")
    if not sessions:
        return []
    engine = sessions[0]._running()
    if any(session._running() is not engine for session in sessions):
        raise InputError("Only sessions of one pipeline can be stepped together.")
    pairs = list(zip(sessions, chunks, strict=True))
    outputs = engine.step([session._look(engine, chunk) for session, chunk in pairs])
    fetched = [_fetched(output) for output in outputs]
    return [
        session._show(chunk.times, output, images)
        for (session, chunk), output, images in zip(pairs, outputs, fetched, strict=True)
    ]


def _fetched(output: StepOutput | None) -> Callable[[], Tensor]:
    """A step's frames on their way to the host."""
    return to_host(torch.empty(0) if output is None else output.images)


def own_reference(reference: Reference) -> FusedReference:
    """The reference as this pipeline's. Raises `InputError` for another's."""
    if not isinstance(reference, FusedReference):
        raise InputError("This reference was fused by another pipeline. Fuse the image with this one.")
    return reference


def seeded(seed: int) -> Callable[[], NoiseSource]:
    """Sources that all draw the same, from that seed."""
    return cast("Callable[[], NoiseSource]", lambda: SeededNoise(seed))
