"""How fast the preview runs: each stage alone, and a whole job from file to file.

    python -m benchmarks.preview                 # 512x512, the sample clip
    python -m benchmarks.preview --size 256 --repeat 5

Stages are timed frame by frame in one thread and given as the median; the whole job decodes, tracks, warps and
encodes as `personalive animate` does, in its own threads, several times over, and the best run is given beside the
median: on a shared machine the others measure the neighbours.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from benchmarks.following import SAMPLES, square_portrait
from personalive.face.tracker import FaceDetector, FaceTracker
from personalive.jobs import AnimateJob, run
from personalive.media import COMPOSITE_SYNTHETIC, Provenance, VideoReader, open_writer, read_image
from personalive.pipelines.preview.motion import PortraitMotion
from personalive.pipelines.preview.parameters import PreviewRunParameters
from personalive.pipelines.preview.retarget import Retargeter
from personalive.pipelines.preview.warp import LayeredPortrait


def median_ms(work: Callable[[int], object], count: int) -> float:
    """Return the median wall time in ms of `work(0)`, `work(1)` and so on."""
    spent = []
    for index in range(count):
        start = time.perf_counter()
        work(index)
        spent.append(time.perf_counter() - start)
    return statistics.median(spent) * 1e3


def stages(size: int) -> dict[str, float]:
    """Milliseconds per frame of each stage alone."""
    start = time.perf_counter()
    with VideoReader(SAMPLES / "driving.mp4") as reader:
        driving = [frame.image for frame in reader]
    decode = (time.perf_counter() - start) / len(driving) * 1e3
    with FaceDetector() as detector:
        square = square_portrait(read_image(SAMPLES / "portrait.jpg"), detector)
        picture = np.asarray(cv2.resize(square, (size, size)), np.uint8)
        face = detector.detect_dominant(picture)
    assert face is not None
    start = time.perf_counter()
    portrait = LayeredPortrait.build(picture, face.landmarks)
    fuse = (time.perf_counter() - start) * 1e3
    retargeter = Retargeter(face, portrait.shape, portrait.pose.rotation)
    parameters = PreviewRunParameters()
    motions: list[PortraitMotion] = []
    with FaceTracker() as tracker:
        faces = [tracker.track(frame) for frame in driving[:3]]
        track = median_ms(lambda k: faces.append(tracker.track(driving[3 + k])), len(driving) - 3)
    seen = [found for found in faces if found is not None]
    retarget = median_ms(
        lambda k: motions.append(retargeter.retarget(seen[k], k / 25, parameters)), len(seen)
    )
    frames = []
    warp = median_ms(lambda k: frames.append(portrait.draw(motions[k])), len(motions))
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        mark = Provenance("personalive benchmark", "preview", digital_source_type=COMPOSITE_SYNTHETIC)
        with open_writer(
            Path(folder) / "out.mp4", width=size, height=size, fps=25, provenance=mark
        ) as writer:
            for frame in frames:
                writer.write(frame)
        encode = (time.perf_counter() - start) / len(frames) * 1e3
    return {
        "fuse the portrait (once)": fuse,
        "decode": decode,
        "track": track,
        "retarget": retarget,
        "warp": warp,
        "encode": encode,
    }


def whole_job(size: int, repeat: int) -> tuple[float, float]:
    """Best and median frames per second from file to file, loading and fusing left out."""
    speeds = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(repeat):
            report = run(
                AnimateJob(
                    reference=SAMPLES / "portrait.jpg",
                    driving=SAMPLES / "driving.mp4",
                    output=Path(folder) / "out.mp4",
                    pipeline="preview",
                    size=size,
                    overwrite=True,
                )
            )
            speeds.append(report.speed)
    return max(speeds), statistics.median(speeds)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--size", type=int, default=512, help="side of the output, a multiple of 64")
    parser.add_argument("--repeat", type=int, default=3, help="runs of the whole job")
    options = parser.parse_args()
    print(f"{options.size}x{options.size}, {os.cpu_count()} cores")
    for name, spent in stages(options.size).items():
        print(f"  {name:26}{spent:8.1f} ms{1e3 / spent:9.0f} per second")
    best, median = whole_job(options.size, options.repeat)
    print(f"  {'whole job':26}{1e3 / best:8.1f} ms{best:9.0f} per second (median run {median:.0f})")


if __name__ == "__main__":
    main()
