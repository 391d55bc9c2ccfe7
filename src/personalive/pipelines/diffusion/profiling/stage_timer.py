"""Timing of each stage of a step, by the device's clock where it has one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Concatenate, ParamSpec, TypeVar

import torch

from personalive.pipelines.diffusion.sampling.engine import DiffusionEngine
from personalive.pipelines.diffusion.stages.stages import Stages

STAGE_NAMES = {
    "encode_motion": "motion networks",
    "encode_pose": "pose guider",
    "denoise": "denoising UNet",
    "decode": "decoder",
}
"""The description of each stage, by the name of its method in `Stages`."""

Params = ParamSpec("Params")
Result = TypeVar("Result")
TimePoint = torch.cuda.Event | float


def _timed(
    stage: Callable[Concatenate[Stages, Params], Result],
) -> Callable[Concatenate[TimedStages, Params], Result]:
    """Return a method that runs a stage, and records its time under the stage's name."""
    name = stage.__name__

    def run(self: TimedStages, /, *args: Params.args, **kwargs: Params.kwargs) -> Result:
        begun = _record_time(self.device)
        result: Result = getattr(self.stages, name)(*args, **kwargs)
        self.spans.append((name, begun, _record_time(self.device)))
        return result

    return run


class TimedStages:
    """Stages that are timed; see `Stages`. `collect` returns the time that each took since its last call."""

    def __init__(self, stages: Stages, device: torch.device) -> None:
        self.stages = stages
        self.device = device
        self.spans: list[tuple[str, TimePoint, TimePoint]] = []

    def collect(self) -> dict[str, float]:
        """Wait for the device, and return the seconds of each stage since the last call."""
        took = dict.fromkeys(STAGE_NAMES, 0.0)
        for name, begun, ended in self.spans:
            took[name] += _elapsed_seconds(begun, ended)
        self.spans.clear()
        return took

    encode_motion = _timed(Stages.encode_motion)
    encode_pose = _timed(Stages.encode_pose)
    denoise = _timed(Stages.denoise)
    decode = _timed(Stages.decode)


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
