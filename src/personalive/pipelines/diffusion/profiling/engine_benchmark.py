"""A benchmark of the networks alone: an engine's steps on synthetic frames, stage by stage.

A step goes from frames in the host's memory to frames in the host's memory, without face detection. History
keyframes are forced and copies of the reference, since their cost does not depend on what they show.
`session_benchmark.py` measures the same with face detection.
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
)
from personalive.pipelines.diffusion.sampling.noise import SeededNoise
from personalive.pipelines.diffusion.sampling.reference import FusedReference
from personalive.pipelines.diffusion.stages.stages import Stages
from personalive.pipelines.diffusion.warmup import (
    make_synthetic_reference,
    start_state,
    step_with_faces,
    with_keyframes,
)
from personalive.process_memory import peak_rss_bytes

_NO_KEYFRAMES = PersonaLiveRunParameters(keyframe_threshold=1e9)
"""A threshold at which there are no keyframes except those that are forced."""


def make_synthetic_frames(count: int, height: int, width: int) -> Frames:
    """Return frames of a smooth pattern that drifts, uint8 (count, height, width, 3)."""
    y, x, step = np.meshgrid(np.arange(height), np.arange(width), np.arange(count), indexing="ij")
    waves = [np.sin(x / 40 + step / 5), np.sin(y / 30 - step / 7), np.sin((x + y) / 50 + step / 9)]
    picture = (127 + 100 * np.stack(waves, axis=-1)).astype(np.uint8)
    return np.ascontiguousarray(picture.transpose(2, 0, 1, 3))


class EngineBenchmark:
    """A benchmark that steps an engine without sessions; the engine's stages are timed until `close`."""

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
        """The engine's stages without timing."""
        return self._untimed

    def close(self) -> None:
        """Restore the engine's stages."""
        self._engine.stages = self._untimed

    def measure(self, *, sessions: int, keyframes: int, steps: int, warmup: int) -> StepTimes:
        """Measure `steps` steps, after `warmup` steps that do not count; return their medians."""
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
        """Measure the seconds from a fused reference to the first chunk's frames."""
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
        driving = [DrivingFrames(frames_to_device(frames, device), found) for _ in states]
        noise = SeededNoise(number).draw(engine.noise_shape(chunk))
        done = step_with_faces(engine, self.reference, states, driving, noise, _NO_KEYFRAMES)
        for fetched in [to_host(output.images) for output in done]:
            fetched().numpy().copy()
        # The number of earlier chunks does not affect the time; at 0, no keyframe can follow.
        return [replace(one.state, window=replace(one.state.window, chunk=0)) for one in done]


def read_synchronized_clock(device: torch.device) -> float:
    """Wait until the device has done all its work, and return the seconds of `time.perf_counter`."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def reserved_memory_gb(device: torch.device) -> float:
    """Return the memory that PyTorch holds on the GPU now, used or not, in GB; 0 without a GPU."""
    return torch.cuda.memory_reserved(device) / 1e9 if device.type == "cuda" else 0.0


def peak_memory_gb(device: torch.device) -> float:
    """Return the peak memory since the process began, in GB: a GPU's if there is one, else the process's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return peak_rss_bytes() / 1e9


def device_name(device: torch.device) -> str:
    """Return the name that the device reports."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
