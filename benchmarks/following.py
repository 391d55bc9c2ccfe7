"""How well the preview follows its driver: faces found again in the output, measured against the driver.

    python -m benchmarks.following                         # the sample, and clips of real people where fetched
    python -m benchmarks.following --sheet docs/images     # contact sheets as well

For each pair of portrait and driver: the correlation of jawOpen, smile, blink, yaw and pitch over the clip, with
the range each covers in the driver (a channel that hardly moves has no correlation worth reading); the blink of
the output where the driver's is 0.8 or more; the distance in pixels between the landmarks found in the output and
where the motion meant them to be; and the largest change of any pixel of the background. Faces are detected frame
by frame, without the help of tracking.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from personalive.face.crop import compute_reference_crop, extract_crop
from personalive.face.face import Face
from personalive.face.pose import fit_head_pose
from personalive.face.tracker import FaceDetector, FaceTracker
from personalive.media import Image, VideoReader, read_image
from personalive.pipelines.preview.head_layout import HeadLayout
from personalive.pipelines.preview.parameters import PreviewRunParameters
from personalive.pipelines.preview.retarget import Retargeter
from personalive.pipelines.preview.warp import LayeredPortrait

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = ROOT / "src/personalive/samples"
FOOTAGE = ROOT / "build/footage"
SIZE = 512

CHANNELS = {
    "jawOpen": ("jawOpen",),
    "smile": ("mouthSmileLeft", "mouthSmileRight"),
    "blink": ("eyeBlinkLeft", "eyeBlinkRight"),
}
WORTH_READING = {"jawOpen": 0.1, "smile": 0.2, "blink": 0.2, "yaw": 6.0, "pitch": 6.0}
"""Least range of the driver, 2nd to 98th percentile, at which a channel counts (scores; degrees)."""


@dataclass(frozen=True)
class Channel:
    """One channel over a clip: `correlation` of output and driver, and the driver's `reach`."""

    correlation: float
    reach: float
    counts: bool


@dataclass(frozen=True)
class Following:
    """Figures of one pair. `blink_kept`: median output blink where the driver's is ≥ 0.8, None where it never is.

    `landmark_error`: mean pixels over frames and 468 points; `feature_error` the same over eyes, brows, nose and
    lips. `background_change`: largest difference of any pixel outside the head, in grey levels.
    """

    name: str
    frames: int
    channels: dict[str, Channel]
    blink_kept: float | None
    landmark_error: float
    feature_error: float
    background_change: int
    background_share: float
    outputs: list[Image]
    driving: list[Image]


def square_portrait(image: Image, detector: FaceDetector) -> Image:
    """Return a picture cropped to its face as `personalive animate` does."""
    face = detector.detect_dominant(image)
    if face is None:
        raise SystemExit("No face in the portrait.")
    size = (image.shape[1], image.shape[0])
    return extract_crop(image, compute_reference_crop(face, size), (SIZE, SIZE))


def measure(
    name: str, picture: Image, driving: Sequence[Image], fps: float, motion: str = "relative"
) -> Following:
    """Animate `picture` (cropped already) by the driving frames, and measure the result."""
    parameters = PreviewRunParameters.model_validate({"motion": motion})
    with FaceDetector() as detector, FaceTracker() as tracker:
        face = detector.detect_dominant(picture)
        assert face is not None
        portrait = LayeredPortrait.build(picture, face.landmarks)
        retargeter = Retargeter(face, portrait.shape, portrait.pose.rotation)
        asked: list[Face] = []
        found: list[Face] = []
        outputs: list[Image] = []
        errors: list[NDArray[np.float32]] = []
        still = _outside_head(face, picture)
        change = 0
        for index, frame in enumerate(driving):
            seen = tracker.track(frame)
            if seen is None:
                continue
            wanted = retargeter.retarget(seen, index / fps, parameters)
            output = portrait.draw(wanted)
            outputs.append(output)
            difference = cv2.absdiff(output, picture).max(axis=2)
            change = max(change, int(difference[still].max()))
            again = detector.detect_dominant(output)
            if again is None:
                continue
            asked.append(seen)
            found.append(again)
            target = portrait.compute_target(wanted).points
            errors.append(np.linalg.norm(again.landmarks[:468, :2] - target[:468, :2], axis=1))
    distance = np.array(errors)
    blinks = np.array([(_score(a, "blink"), _score(f, "blink")) for a, f in zip(asked, found, strict=True)])
    shut = blinks[:, 0] >= 0.8
    return Following(
        name=name,
        frames=len(found),
        channels=_channels(asked, found),
        blink_kept=float(np.median(blinks[shut, 1])) if shut.any() else None,
        landmark_error=float(distance.mean()),
        feature_error=float(distance[:, _features()].mean()),
        background_change=change,
        background_share=float(still.mean()),
        outputs=outputs,
        driving=list(driving),
    )


def _features() -> NDArray[np.intp]:
    from personalive.pipelines.preview import topology as mesh

    nose = np.array([1, 2, 4, 5, 6, 168, 195, 197])
    eyes = [eye.ring for eye in mesh.EYES]
    return np.unique(
        np.concatenate(
            [nose, *eyes, mesh.BROW_LEFT, mesh.BROW_RIGHT, *mesh.LOWER_LIP_ROWS, *mesh.UPPER_LIP_ROWS]
        )
    )


def _outside_head(face: Face, picture: Image) -> NDArray[np.bool_]:
    """Return the wall that the head never covers: 1.3 face widths beside and 1.4 face heights above its middle.

    From the mouth down there may be a collar or a shoulder, which bends with the neck.
    """
    height, width = picture.shape[:2]
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    side, down = HeadLayout.from_landmarks(face.landmarks).to_face_coords(
        np.column_stack([x.ravel(), y.ravel()])
    )
    beyond = (np.hypot(side / 1.3, down / 1.4) > 1) & (down < 0.25)
    return np.asarray(beyond.reshape(height, width))


def _score(face: Face, channel: str) -> float:
    return face.score(*CHANNELS[channel])


def _channels(asked: list[Face], found: list[Face]) -> dict[str, Channel]:
    series = {name: [[_score(f, name) for f in faces] for faces in (asked, found)] for name in CHANNELS}
    for name, axis in (("yaw", 1), ("pitch", 0)):
        series[name] = [
            [float(fit_head_pose(f.landmarks).angles[axis]) for f in faces] for faces in (asked, found)
        ]
    channels = {}
    for name, (driver, output) in series.items():
        low, high = np.percentile(driver, [2, 98])
        correlation = float(np.corrcoef(driver, output)[0, 1]) if np.std(driver) and np.std(output) else 0.0
        channels[name] = Channel(correlation, float(high - low), bool(high - low >= WORTH_READING[name]))
    return channels


def sample_pair(detector: FaceDetector, frames: int | None = None) -> tuple[Image, list[Image]]:
    """Return the shipped portrait, cropped, and the shipped driving frames."""
    with VideoReader(SAMPLES / "driving.mp4", max_frames=frames) as reader:
        driving = [frame.image for frame in reader]
    return square_portrait(read_image(SAMPLES / "portrait.jpg"), detector), driving


def footage_pairs(detector: FaceDetector) -> list[tuple[str, Image, list[Image], float]]:
    """Real people driving the sample portrait, and one real person another; empty where not fetched."""
    if not (FOOTAGE / "single_face.mp4").exists():
        return []
    pairs: list[tuple[str, Image, list[Image], float]] = []
    astronaut = square_portrait(read_image(SAMPLES / "portrait.jpg"), detector)
    clips = {}
    for name in ("single_face", "WolfgangLanger_Pexels"):
        with VideoReader(FOOTAGE / f"{name}.mp4") as reader:
            clips[name] = ([frame.image for frame in reader], reader.info.fps)
    man = square_portrait(clips["single_face"][0][0], detector)
    for name, (driving, fps) in clips.items():
        pairs.append((f"sample portrait <- {name}", astronaut, driving, fps))
        pairs.append((f"man of single_face <- {name}", man, driving, fps))
    return pairs


def contact_sheet(result: Following, columns: int = 8, rows: int = 3, tile: int = 160) -> Image:
    """Driver above output, evenly spread over the clip."""
    picks = np.linspace(0, len(result.outputs) - 1, columns * rows).astype(int)
    lines = []
    for row in range(rows):
        chosen = picks[row * columns : (row + 1) * columns]
        for frames in (result.driving, result.outputs):
            lines.append(np.concatenate([_tile(frames[i], tile) for i in chosen], axis=1))
    return np.ascontiguousarray(np.concatenate(lines, axis=0))


def _tile(frame: Image, side: int) -> Image:
    height, width = frame.shape[:2]
    left, top = max((width - height) // 2, 0), max((height - width) // 2, 0)
    square = frame[top : height - top, left : width - left]
    return np.asarray(cv2.resize(square, (side, side), interpolation=cv2.INTER_AREA), np.uint8)


def _print(result: Following) -> None:
    def cell(channel: Channel) -> str:
        return (
            f"{channel.correlation:.2f} ({channel.reach:.2g})"
            if channel.counts
            else f"  - ({channel.reach:.2g})"
        )

    kept = "-" if result.blink_kept is None else f"{result.blink_kept:.2f}"
    cells = "".join(f"{cell(c):>13}" for c in result.channels.values())
    print(
        f"{result.name:46}{result.frames:5}{cells}{kept:>8}{result.landmark_error:8.2f}"
        f"{result.feature_error:9.2f}{result.background_change:6}  ({result.background_share:.0%})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--sheet", type=Path, help="folder for contact sheets")
    parser.add_argument("--motion", choices=("relative", "absolute"), default="relative")
    options = parser.parse_args()
    print(
        f"{'pair':46}{'n':>5}{'jawOpen':>13}{'smile':>13}{'blink':>13}{'yaw':>13}{'pitch':>13}"
        f"{'shut':>8}{'px':>8}{'px feat':>9}{'  background'}"
    )
    with FaceDetector() as detector:
        portrait, driving = sample_pair(detector)
        pairs = [("sample portrait <- sample clip", portrait, driving, 25.0), *footage_pairs(detector)]
    for number, (name, picture, frames, fps) in enumerate(pairs):
        result = measure(name, picture, frames, fps, options.motion)
        _print(result)
        if options.sheet:
            options.sheet.mkdir(parents=True, exist_ok=True)
            sheet = cv2.cvtColor(contact_sheet(result), cv2.COLOR_RGB2BGR)
            cv2.imwrite(str(options.sheet / f"following-{number}.png"), sheet)
    if len(pairs) == 1:
        print("Clips of real people are not here; `make footage` fetches them.")


if __name__ == "__main__":
    main()
