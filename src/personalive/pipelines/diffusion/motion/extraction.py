"""Extraction of the driver's motion from a clip's frames."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np

from personalive.errors import InputError
from personalive.face.choice import FaceChoice
from personalive.media import VideoFrame
from personalive.pipelines.diffusion.motion.driving_motion import DrivingMotion
from personalive.pipelines.diffusion.sampling.engine import DiffusionEngine, to_driving_frames
from personalive.pipelines.diffusion.stages.motion_features import MotionFeatures
from personalive.pipelines.diffusion.tracking.driver_tracker import DriverTracker


def extract_motion(
    engine: DiffusionEngine,
    frames: Iterable[VideoFrame],
    fps: float,
    weights: str,
    choice: FaceChoice | None = None,
) -> DrivingMotion:
    """Extract the motion features of all frames in chunks, as a session would, and keep them.

    `choice`: which face of the frames is followed; the dominant one by default.

    Raises `InputError` where there is no frame, or none with a face.
    """
    parameters, device = engine.parameters, engine.components.device
    size = (parameters.width, parameters.height)
    tracker = DriverTracker(size, detect=parameters.face_detection, choice=choice)
    source, parts, times = iter(frames), list[MotionFeatures](), list[float]()
    try:
        while batch := list(itertools.islice(source, engine.scheduler.chunk_frames)):
            times += [frame.time for frame in batch]
            tracked = [tracker.analyze(frame.image, frame.time) for frame in batch]
            # A session takes whole chunks only, and a batch of another size would be rounded differently.
            tracked += [tracked[-1]] * (engine.scheduler.chunk_frames - len(batch))
            parts += engine.extract_motion_features([to_driving_frames(tracked, device)])
    finally:
        tracker.close()
    if not any(bool(part.valid.any()) for part in parts):
        raise InputError("No face was found in the driving clip.")
    return DrivingMotion.concatenate(parts, np.array(times), fps, weights)
