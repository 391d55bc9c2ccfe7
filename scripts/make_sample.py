"""Make the sample: a portrait, and a driving clip of a face that talks, blinks, nods and smiles by script.

    python scripts/make_sample.py            # writes src/personalive/samples/

The portrait is a crop of skimage.data.astronaut() (Eileen Collins, NASA, public domain). The driver is the same
photograph mirrored, in grey, its smile taken away, moved with the preview's own warp: no other face is needed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image as Pillow
from skimage import data

from personalive.face.pose import Double, rotation_matrix
from personalive.face.tracker import FaceDetector
from personalive.media import COMPOSITE_SYNTHETIC, Provenance, open_writer
from personalive.media.types import Image
from personalive.pipelines.preview import topology as mesh
from personalive.pipelines.preview.motion import PortraitMotion
from personalive.pipelines.preview.rig import combine_expressions
from personalive.pipelines.preview.warp import LayeredPortrait

FPS = 25
SECONDS = 9.0


def bump(start: float, end: float, ease: float = 0.25) -> Callable[[float], float]:
    """0 outside start…end, 1 inside, eased over `ease` seconds at either end."""

    def value(t: float) -> float:
        rise = np.clip((t - start) / ease, 0.0, 1.0)
        fall = np.clip((end - t) / ease, 0.0, 1.0)
        x = float(min(rise, fall))
        return x * x * (3 - 2 * x)

    return value


def swing(start: float, end: float, turns: float) -> Callable[[float], float]:
    """Return a sine of that many turns between start and end, faded at both ends."""
    window = bump(start, end, 0.3)
    return lambda t: window(t) * float(np.sin(2 * np.pi * turns * (t - start) / (end - start)))


BLINKS = tuple(bump(t, t + 0.26, 0.11) for t in (0.55, 1.9, 3.35, 4.3, 8.3))
LONG_BLINK = bump(6.05, 6.75, 0.15)
TALK = swing(0.9, 2.9, 6.5)
WORDS = bump(0.9, 2.9, 0.3)
TURN = swing(2.8, 4.4, 1.0)
NOD = swing(4.2, 5.6, 2.0)
SMILE = bump(4.7, 6.9, 0.45)
SURPRISE = bump(7.0, 8.0, 0.3)
TILT = swing(5.6, 7.2, 1.0)
LOOK = swing(7.7, 8.8, 1.0)


def closed_mouth(portrait: LayeredPortrait) -> Double:
    """Return the displacement that takes a photographed smile away and brings the lips together."""
    rest = combine_expressions({"mouthSmileLeft": -1.0, "mouthSmileRight": -1.0})
    shape = portrait.shape + rest
    meet = (shape[mesh.UPPER_INNER_LIP] + 2 * shape[mesh.LOWER_INNER_LIP]) / 3
    for rows, inner in ((mesh.UPPER_LIP_ROWS, 0), (mesh.LOWER_LIP_ROWS, 0)):
        edge = meet - shape[rows[inner]]
        for depth, row in enumerate(rows):
            rest[row] += edge * (1.0 - 0.12 * depth)
    return rest


def motion_at(t: float, rest: Double) -> PortraitMotion:
    """Return what the driver does at a time in seconds."""
    jaw = 1.0 * max(TALK(t), 0.0) * (0.75 + 0.25 * np.sin(9.1 * t)) + 1.1 * SURPRISE(t)
    pucker = 0.7 * max(-TALK(t), 0.0)
    shape = rest + combine_expressions(
        {
            "jawOpen": jaw,
            "mouthPucker": pucker,
            "mouthSmileLeft": 1.05 * SMILE(t),
            "mouthSmileRight": 1.05 * SMILE(t),
            "browInnerUp": 0.9 * SURPRISE(t) + 0.25 * WORDS(t) * max(np.sin(2.3 * t), 0.0),
            "browOuterUpLeft": 0.9 * SURPRISE(t),
            "browOuterUpRight": 0.9 * SURPRISE(t),
        }
    )
    sway = WORDS(t)
    pitch = 3.0 * sway * np.sin(3.3 * t) + 11.0 * NOD(t) - 4.0 * SURPRISE(t)
    yaw = 4.0 * sway * np.sin(2.1 * t) + 17.0 * TURN(t)
    roll = 2.0 * sway * np.sin(1.7 * t) + 9.0 * TILT(t)
    lids = max([blink(t) for blink in BLINKS] + [LONG_BLINK(t)]) - 0.6 * SURPRISE(t)
    gaze = np.array([0.15 * LOOK(t), 0.0])
    return PortraitMotion(
        rotation=rotation_matrix(np.radians([pitch, yaw, roll])),
        shape=shape,
        closure=np.array([lids, lids]),
        gaze=np.stack([gaze, gaze]),
    )


def driver_picture(astronaut: Image) -> Image:
    """Return the photograph mirrored, in grey with a touch of blue, framed as a webcam would."""
    mirrored = astronaut[0:290, 80:370][:, ::-1]
    grey = cv2.cvtColor(np.ascontiguousarray(mirrored), cv2.COLOR_RGB2GRAY).astype(np.float32)[..., None]
    tinted = np.clip(grey * np.array([0.94, 0.99, 1.06], np.float32), 0, 255).astype(np.uint8)
    return np.asarray(cv2.resize(tinted, (640, 512), interpolation=cv2.INTER_CUBIC), np.uint8)[
        :, 64:576
    ].copy()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    here = Path(__file__).resolve().parent.parent
    parser.add_argument(
        "--out", type=Path, default=here / "src/personalive/samples", help="folder to write to"
    )
    folder: Path = parser.parse_args().out
    folder.mkdir(parents=True, exist_ok=True)
    astronaut = np.ascontiguousarray(data.astronaut())  # type: ignore[no-untyped-call]
    Pillow.fromarray(astronaut[0:400, 20:420]).save(folder / "portrait.jpg", quality=94)
    picture = driver_picture(astronaut)
    with FaceDetector() as detector:
        face = detector.detect_dominant(picture)
    if face is None:
        raise SystemExit("No face in the driver's picture.")
    portrait = LayeredPortrait.build(picture, face.landmarks)
    rest = closed_mouth(portrait)
    made = Provenance(
        software="personalive", pipeline="preview (scripted)", digital_source_type=COMPOSITE_SYNTHETIC
    )
    path = folder / "driving.mp4"
    with open_writer(
        path, width=512, height=512, fps=FPS, provenance=made, overwrite=True, quality=24
    ) as writer:
        for index in range(round(FPS * SECONDS)):
            writer.write(portrait.draw(motion_at(index / FPS, rest)))
    print(f"{folder / 'portrait.jpg'} and {path} ({path.stat().st_size / 1000:.0f} kB)")


if __name__ == "__main__":
    main()
