"""Timing of each stage of a step, by the device's clock where it has one."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from personalive.pipelines.diffusion.sampling.engine import DiffusionEngine
from personalive.pipelines.diffusion.stages.motion_features import MotionFeatures
from personalive.pipelines.diffusion.stages.stages import Stages

STAGE_NAMES = {
    "see": "motion networks",
    "pose": "pose guider",
    "predict": "denoising UNet",
    "show": "decoder",
}
"""The description of each stage."""

TimePoint = torch.cuda.Event | float


class TimedStages:
    """Stages that are timed; see `Stages`. `collect` returns the time that each took since its last call."""

    def __init__(self, stages: Stages, device: torch.device) -> None:
        self._stages = stages
        self._device = device
        self._spans: list[tuple[str, TimePoint, TimePoint]] = []

    def collect(self) -> dict[str, float]:
        """Wait for the device, and return the seconds of each stage since the last call."""
        took = dict.fromkeys(STAGE_NAMES, 0.0)
        for name, begun, ended in self._spans:
            took[name] += _elapsed_seconds(begun, ended)
        self._spans.clear()
        return took

    def encode_motion(self, frames: Tensor, has_face: Tensor) -> MotionFeatures:
        """See `Stages`."""
        with self._measure("see"):
            return self._stages.encode_motion(frames, has_face)

    def encode_pose(self, keypoints: Tensor) -> Tensor:
        """See `Stages`."""
        with self._measure("pose"):
            return self._stages.encode_pose(keypoints)

    def denoise(
        self, latents: Tensor, motion: Tensor, pose: Tensor, attention: Sequence[Sequence[Tensor]]
    ) -> Tensor:
        """See `Stages`."""
        with self._measure("predict"):
            return self._stages.denoise(latents, motion, pose, attention)

    def decode(self, latents: Tensor) -> Tensor:
        """See `Stages`."""
        with self._measure("show"):
            return self._stages.decode(latents)

    @contextmanager
    def _measure(self, name: str) -> Iterator[None]:
        begun = _record_time(self._device)
        yield
        self._spans.append((name, begun, _record_time(self._device)))


@contextmanager
def time_stages(engine: DiffusionEngine) -> Iterator[TimedStages]:
    """Time an engine's stages within the block; stages that are timed already stay as they are."""
    before = engine.stages
    if isinstance(before, TimedStages):
        yield before
        return
    timed = TimedStages(before, engine.components.device)
    engine.stages = timed
    try:
        yield timed
    finally:
        engine.stages = before


def _record_time(device: torch.device) -> TimePoint:
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record(torch.cuda.current_stream(device))
    return event


def _elapsed_seconds(begun: TimePoint, ended: TimePoint) -> float:
    if isinstance(begun, float) or isinstance(ended, float):
        return float(ended) - float(begun)  # type: ignore[arg-type]
    ended.synchronize()
    milliseconds: float = begun.elapsed_time(ended)
    return milliseconds / 1000
