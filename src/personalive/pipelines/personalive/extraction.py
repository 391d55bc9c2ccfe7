"""A clip's frames → its driver's motion."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np
import torch

from personalive.errors import InputError
from personalive.media import VideoFrame
from personalive.pipelines.interface import FrameChunk
from personalive.pipelines.personalive.driving import Perceived
from personalive.pipelines.personalive.engine import Engine, Look
from personalive.pipelines.personalive.motion import DrivingMotion
from personalive.pipelines.personalive.pixels import on_device
from personalive.pipelines.personalive.watch import Watch


def extract(engine: Engine, frames: Iterable[VideoFrame], fps: float, weights: str) -> DrivingMotion:
    """Look at all frames as a session would, in chunks, and keep what is seen.

    Raises `InputError` where there is no frame, or none with a face.
    """
    parameters, device = engine.parameters, engine.models.device
    watch = Watch((parameters.width, parameters.height), detect=parameters.face_detection)
    source, parts, times = iter(frames), list[Perceived](), list[float]()
    try:
        while batch := list(itertools.islice(source, engine.schedule.chunk_frames)):
            times += [frame.time for frame in batch]
            chunk = FrameChunk(np.stack([frame.image for frame in batch]), np.array(times[-len(batch) :]))
            pictures, found = watch.look(chunk)
            # A session sees whole chunks alone, and a batch of another size would be rounded differently.
            whole = np.arange(engine.schedule.chunk_frames).clip(max=len(batch) - 1)
            seen = torch.tensor(found, device=device)[whole]
            parts += engine.perceive([Look(on_device(pictures[whole], device), seen)])
    finally:
        watch.close()
    if not any(bool(part.valid.any()) for part in parts):
        raise InputError("No face was found in the driving clip.")
    return DrivingMotion.joined(parts, np.array(times), fps, weights)
