"""The networks alone: an engine's steps on made-up frames, stage by stage.

A step goes from frames in the host's memory to frames in the host's memory, without looking for faces. History
keyframes are forced, each the reference itself: what they cost does not depend on what they show. `whole_steps`
measures the same with faces looked for.
"""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import torch

from personalive.media.types import Frames
from personalive.pipelines.diffusion.device.pinned_copy import to_device, to_host
from personalive.pipelines.diffusion.parameters import PersonaLiveRunParameters
from personalive.pipelines.diffusion.preprocessing.pixels import frames_to_device
from personalive.pipelines.diffusion.profiling.stage_timer import TimedStages
from personalive.pipelines.diffusion.profiling.step_times import StepTimes, summarise
from personalive.pipelines.diffusion.sampling.engine import (
    DiffusionEngine,
    DrivingFrames,
    SessionState,
    StepInput,
)
from personalive.pipelines.diffusion.sampling.noise import SeededNoise
from personalive.pipelines.diffusion.sampling.reference import FusedReference
from personalive.pipelines.diffusion.stages.stages import Stages
from personalive.pipelines.diffusion.warmup import (
    make_synthetic_reference,
    start_state,
    with_faces,
    with_keyframes,
)
from personalive.process_memory import peak_rss_bytes

_NO_KEYFRAMES = PersonaLiveRunParameters(keyframe_threshold=1e9)
"""No keyframe is taken but those that are forced."""


def make_synthetic_frames(count: int, height: int, width: int) -> Frames:
    """A soft pattern that drifts, uint8 (count, height, width, 3)."""
    y, x, step = np.meshgrid(np.arange(height), np.arange(width), np.arange(count), indexing="ij")
    waves = [np.sin(x / 40 + step / 5), np.sin(y / 30 - step / 7), np.sin((x + y) / 50 + step / 9)]
    picture = (127 + 100 * np.stack(waves, axis=-1)).astype(np.uint8)
    return np.ascontiguousarray(picture.transpose(2, 0, 1, 3))


class EngineBenchmark:
    """Steps an engine without sessions, its stages timed for as long as it is open."""

    def __init__(self, engine: DiffusionEngine) -> None:
        self._engine = engine
        self._untimed = engine.stages
        self._timed = TimedStages(engine.stages, engine.components.device)
        engine.stages = self._timed
        parameters = engine.parameters
        self._clip = make_synthetic_frames(
            8 * engine.scheduler.chunk_frames, parameters.height, parameters.width
        )
        self.reference: FusedReference = make_synthetic_reference(engine)

    @property
    def untimed_stages(self) -> Stages:
        """The engine's stages, not timed."""
        return self._untimed

    def close(self) -> None:
        """Leave the engine as it was."""
        self._engine.stages = self._untimed

    def measure(self, *, sessions: int, keyframes: int, steps: int, warmup: int) -> StepTimes:
        """Medians over `steps`, after `warmup` more that do not count."""
        begun = start_state(self._engine, self.reference)
        (begun,) = self._step([begun], 0)
        states = [with_keyframes(begun, self.reference, keyframes)] * sessions
        totals: list[float] = []
        stages: list[dict[str, float]] = []
        for number in range(warmup + steps):
            started = self._read_clock()
            states = self._step(states, number)
            totals.append(1000 * (time.perf_counter() - started))
            stages.append(self._timed.collect())
        return summarise(self._engine, sessions, keyframes, totals[warmup:], stages[warmup:])

    def measure_first_chunk(self) -> float:
        """Seconds from a fused reference to the first chunk's frames."""
        started = self._read_clock()
        self._step([start_state(self._engine, self.reference)], 0)
        self._timed.collect()
        return time.perf_counter() - started

    def _read_clock(self) -> float:
        return read_synchronized_clock(self._engine.components.device)

    def _step(self, states: list[SessionState], number: int) -> list[SessionState]:
        engine, chunk = self._engine, self._engine.scheduler.chunk_frames
        device = engine.components.device
        place = chunk * number % len(self._clip)
        frames = self._clip[place : place + chunk]
        found = to_device(torch.ones(chunk, dtype=torch.bool), device)
        seen = engine.extract_motion_features(
            [DrivingFrames(frames_to_device(frames, device), found) for _ in states]
        )
        noise = SeededNoise(number).draw(engine.noise_shape(chunk))
        outputs = engine.step(
            [
                # Made-up frames may show no face; the motion networks have looked all the same.
                StepInput(self.reference, state, with_faces(each, self.reference), noise, _NO_KEYFRAMES)
                for state, each in zip(states, seen, strict=True)
            ]
        )
        done = [output for output in outputs if output is not None]
        for fetched in [to_host(output.images) for output in done]:
            fetched().numpy().copy()
        # The window's place in the session does not matter; no keyframe can come before its tenth step.
        return [replace(one.state, window=replace(one.state.window, chunk=0)) for one in done]


def read_synchronized_clock(device: torch.device) -> float:
    """Seconds of `time.perf_counter`, once the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def reserved_memory_gb(device: torch.device) -> float:
    """Memory that PyTorch holds on the GPU now, in use or not, in GB; 0 without one."""
    return torch.cuda.memory_reserved(device) / 1e9 if device.type == "cuda" else 0.0


def peak_memory_gb(device: torch.device) -> float:
    """The most memory in use since the process began, in GB: a GPU's where there is one, else the process's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return peak_rss_bytes() / 1e9


def device_name(device: torch.device) -> str:
    """What the device calls itself."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
