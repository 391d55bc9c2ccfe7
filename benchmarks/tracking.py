"""How fast faces are followed, and how calm the diffusion pipeline's crop is: ours beside MediaPipe's own graph.

    python -m benchmarks.tracking                # the sample, and clips of real people where fetched

Milliseconds a frame, one frame after the other on one thread, median and 95th percentile, the trackers taking turns
frame by frame so that a busy machine slows all alike; MediaPipe always computes the scores. Of the crop that the
diffusion pipeline would cut: jitter, the root mean square of the second difference of its centre in thousandths of
a head's height, and lag, the shift in frames at which the crop's centre best follows the head's as the landmarks
without any filter have it; a crop that stays has none. Seated people hardly move it, so the sample is shown once
more walking to and fro. MediaPipe is left out where it is not installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import numpy as np
from numpy.typing import NDArray

from benchmarks.following import FOOTAGE, SAMPLES
from benchmarks.mediapipe_landmarker import MediaPipeLandmarker
from personalive.face.crop import FollowCrop, measure_head
from personalive.face.face import FaceMesh
from personalive.face.landmarker import FaceLandmarker
from personalive.face.tracker import FaceTracker
from personalive.media import Image, VideoReader

Double = NDArray[np.float64]
Track = Callable[[Image], FaceMesh | None]
Followed = tuple[Double, list[FaceMesh | None]]
TOLERANCE = 0.35
"""Of the diffusion pipeline's crop, in head heights."""
MOST_LAG = 25
WARM_UP = 3


def followed(trackers: dict[str, Track], frames: Sequence[Image]) -> dict[str, Followed]:
    """By tracker: milliseconds of each frame, and what it found there."""
    spent: dict[str, list[float]] = {name: [] for name in trackers}
    found: dict[str, list[FaceMesh | None]] = {name: [] for name in trackers}
    for frame in frames:
        for name, track in trackers.items():
            begun = time.perf_counter()
            found[name].append(track(frame))
            spent[name].append(1e3 * (time.perf_counter() - begun))
    return {name: (np.array(spent[name][WARM_UP:]), found[name]) for name in trackers}


def head_centres(meshes: Sequence[FaceMesh | None]) -> Double:
    """Per frame the head's centre and height, float64 (n, 3) pixels; where none was seen, the one before."""
    centres: list[tuple[float, float, float]] = []
    for mesh in meshes:
        if mesh is not None:
            centres.append(measure_head(mesh))
        elif centres:
            centres.append(centres[-1])
    return np.array(centres)


def crop_centres(meshes: Sequence[FaceMesh | None], size: tuple[int, int], fps: float) -> Double:
    """Per frame the centre of the diffusion pipeline's crop, float64 (n, 2) pixels."""
    crop = FollowCrop(tolerance=TOLERANCE)
    boxes = [crop.update(mesh, size, index / fps) for index, mesh in enumerate(meshes)]
    return np.array([(box.left + box.width / 2, box.top + box.height / 2) for box in boxes])


def jitter(centres: Double, head: float) -> float:
    """Root mean square of the second difference of centres (n, 2), in thousandths of a head's height."""
    return float(1e3 * np.sqrt((np.diff(centres, 2, axis=0) ** 2).sum(1).mean()) / head)


def lag(crop: Double, head: Double) -> float:
    """Return the shift in frames at which `crop` (n, 2) follows `head` (n, 2) best; NaN where it stays."""
    axis = int(np.argmax(crop.std(0)))
    one, other = crop[:, axis], head[:, axis]
    if one.std() < 1e-6:
        return float("nan")
    most = min(MOST_LAG, len(one) // 3)
    shifts = range(most + 1)
    match = [np.corrcoef(one[shift:], other[: len(other) - shift])[0, 1] for shift in shifts]
    return float(np.argmax(match))


def walking(frames: Sequence[Image], fps: float) -> list[Image]:
    """Return the clip carried to and fro in a frame twice as wide, once in five seconds."""
    height, width = frames[0].shape[:2]
    carried = []
    for index, frame in enumerate(frames):
        wide = np.full((height, 2 * width, 3), 128, np.uint8)
        left = round(width / 2 * (1 + 0.8 * np.sin(2 * np.pi * index / (5 * fps))))
        wide[:, left : left + width] = frame
        carried.append(wide)
    return carried


def report(name: str, frames: Sequence[Image], fps: float) -> list[str]:
    """Rows of Markdown for one clip."""
    size = (frames[0].shape[1], frames[0].shape[0])
    with ExitStack() as stack:
        places, scores = (stack.enter_context(FaceTracker()) for _ in range(2))
        trackers: dict[str, Track] = {"landmarks": places.track_mesh, "landmarks and scores": scores.track}
        if importlib.util.find_spec("mediapipe") is not None:
            reference = MediaPipeLandmarker(video=True)
            stack.callback(reference.close)
            trackers["MediaPipe"] = lambda frame: next(iter(reference.find(frame)), None)
        results = followed(trackers, frames)
        unfiltered = FaceLandmarker(max_faces=1)
        stack.callback(unfiltered.close)
        true = head_centres([next(iter(unfiltered.detect(frame)), None) for frame in frames])
    rows = []
    for tracker, (spent, meshes) in results.items():
        crop = crop_centres(meshes, size, fps)
        late = lag(crop[-len(true) :], true[:, :2])
        missed = sum(mesh is None for mesh in meshes)
        rows.append(
            f"| {name} | {tracker} | {np.median(spent):.1f} | {np.percentile(spent, 95):.1f} | {missed} | "
            f"{jitter(head_centres(meshes)[:, :2], true[:, 2].mean()):.2f} | "
            f"{jitter(crop, true[:, 2].mean()):.2f} | {'stays' if np.isnan(late) else f'{late:.0f}'} |"
        )
    return rows


def main() -> None:
    argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0]).parse_args()
    clips = [SAMPLES / "driving.mp4", *sorted(FOOTAGE.glob("[!n]*.mp4"))]
    print(
        "| clip | tracker | ms, median | ms, 95 % | missed | head jitter ‰ | crop jitter ‰ | crop lag, frames |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for clip in clips:
        with VideoReader(clip) as reader:
            frames = [frame.image for frame in reader]
            fps = float(reader.info.fps)
        print("\n".join(report(clip.stem, frames, fps)), flush=True)
        if clip.parent == SAMPLES:
            print("\n".join(report(f"{clip.stem}, walking", walking(frames, fps), fps)), flush=True)
    if len(clips) == 1:
        print("\nClips of real people are not here; `make footage` fetches them.")


if __name__ == "__main__":
    main()
