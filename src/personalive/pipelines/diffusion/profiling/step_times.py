"""The times of steps, stage by stage: medians, the slowest hundredth, and lower bounds where they are known."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from personalive.pipelines.diffusion.parameters import TRAINED_SIDE
from personalive.pipelines.diffusion.profiling.stage_timer import STAGE_NAMES
from personalive.pipelines.diffusion.sampling.engine import DiffusionEngine

_MIN_RELEASED_PARAMETERS = 1.6e9

H100_FLOORS = {"denoise": 73.3, "decode": 26.2}
"""The sums of the times in ms of the fastest library kernel for each layer, each run alone.

Measured on one H100: float16, 512×512, no keyframe, the full autoencoder. UNet: convolutions 13.9, linears 27.2,
attention 20.6, norms as plain copies 11.6; decoder: convolutions 20.7, norms 5.5.
"""


@dataclass(frozen=True, slots=True)
class StageTime:
    """One stage: its median ms in a step, its share of the step, and the ms of the fastest kernels known to us."""

    name: str
    ms: float
    share: float
    floor_ms: float | None = None


@dataclass(frozen=True, slots=True)
class StepTimes:
    """The times in ms of `steps` steps of `sessions` sessions at once, with `keyframes` keyframes each."""

    sessions: int
    keyframes: int
    steps: int
    median_ms: float
    p95_ms: float
    p99_ms: float
    fastest_ms: float
    fps_each: float
    stages: tuple[StageTime, ...]


def summarise(
    engine: DiffusionEngine,
    sessions: int,
    keyframes: int,
    totals: Sequence[float],
    stages: Sequence[Mapping[str, float]],
) -> StepTimes:
    """Summarise steps that took `totals` milliseconds, each with the seconds of its `stages`."""
    middle = statistics.median(totals)
    each = {name: 1000 * statistics.median(one[name] for one in stages) for name in STAGE_NAMES}
    floors = H100_FLOORS if _has_known_floors(engine, sessions, keyframes) else {}
    rows = [StageTime(STAGE_NAMES[name], ms, ms / middle, floors.get(name)) for name, ms in each.items()]
    rest = middle - sum(each.values())
    return StepTimes(
        sessions=sessions,
        keyframes=keyframes,
        steps=len(totals),
        median_ms=middle,
        p95_ms=float(np.quantile(totals, 0.95)),
        p99_ms=float(np.quantile(totals, 0.99)),
        fastest_ms=min(totals),
        fps_each=1000 * engine.scheduler.chunk_frames / middle,
        stages=(*rows, StageTime("all else", rest, rest / middle)),
    )


def _has_known_floors(engine: DiffusionEngine, sessions: int, keyframes: int) -> bool:
    parameters, models = engine.parameters, engine.components
    return (
        models.device.type == "cuda"
        and "H100" in torch.cuda.get_device_name(models.device)
        and (parameters.height, parameters.width) == (TRAINED_SIDE, TRAINED_SIDE)
        and models.dtype is torch.float16
        and parameters.dtype != "float8"
        and parameters.vae == "full"
        and (sessions, keyframes) == (1, 0)
        and sum(each.numel() for each in models.denoising_unet.parameters()) > _MIN_RELEASED_PARAMETERS
    )
