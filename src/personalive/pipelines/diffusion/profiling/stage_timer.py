"""How long each stage of a step takes, on the device's own clock where it has one."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from personalive.pipelines.diffusion.sampling.engine import Engine
from personalive.pipelines.diffusion.stages.motion_features import Perceived
from personalive.pipelines.diffusion.stages.stages import Stages

NAMES = {
    "see": "motion networks",
    "pose": "pose guider",
    "predict": "denoising UNet",
    "show": "decoder",
}
"""Stage → what it is."""

Moment = torch.cuda.Event | float


class TimedStages:
    """Stages that are timed; see `Stages`. `take` gives what each took since it was last asked."""

    def __init__(self, stages: Stages, device: torch.device) -> None:
        self._stages = stages
        self._device = device
        self._spans: list[tuple[str, Moment, Moment]] = []

    def take(self) -> dict[str, float]:
        """Seconds of each stage; waits for the device."""
        took = dict.fromkeys(NAMES, 0.0)
        for name, begun, ended in self._spans:
            took[name] += _seconds(begun, ended)
        self._spans.clear()
        return took

    def see(self, frames: Tensor, found: Tensor) -> Perceived:
        """See `Stages`."""
        with self._timed("see"):
            return self._stages.see(frames, found)

    def pose(self, points: Tensor) -> Tensor:
        """See `Stages`."""
        with self._timed("pose"):
            return self._stages.pose(points)

    def predict(
        self, latents: Tensor, motion: Tensor, pose: Tensor, attended: Sequence[Sequence[Tensor]]
    ) -> Tensor:
        """See `Stages`."""
        with self._timed("predict"):
            return self._stages.predict(latents, motion, pose, attended)

    def show(self, latents: Tensor) -> Tensor:
        """See `Stages`."""
        with self._timed("show"):
            return self._stages.show(latents)

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        begun = _now(self._device)
        yield
        self._spans.append((name, begun, _now(self._device)))


@contextmanager
def timed_stages(engine: Engine) -> Iterator[TimedStages]:
    """An engine's stages, timed for the time of a block; those that are timed already stay."""
    before = engine.stages
    if isinstance(before, TimedStages):
        yield before
        return
    timed = TimedStages(before, engine.models.device)
    engine.stages = timed
    try:
        yield timed
    finally:
        engine.stages = before


def _now(device: torch.device) -> Moment:
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record(torch.cuda.current_stream(device))
    return event


def _seconds(begun: Moment, ended: Moment) -> float:
    if isinstance(begun, float) or isinstance(ended, float):
        return float(ended) - float(begun)  # type: ignore[arg-type]
    ended.synchronize()
    milliseconds: float = begun.elapsed_time(ended)
    return milliseconds / 1000
