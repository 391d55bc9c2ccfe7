"""Make the animation at the top of README from the sample: portrait, driver and result side by side.

python scripts/make_animation.py          # writes docs/images/animation.webp
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image as Pillow

from personalive import animate
from personalive.media import Image, VideoReader

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = ROOT / "src/personalive/samples"
SIDE, GAP = 256, 6
FPS = 12.5
START, END = 1.0, 8.0
"""Seconds of the driving clip that are shown: it talks, blinks, nods and smiles there."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--out", type=Path, default=ROOT / "docs/images/animation.webp", help="file to write")
    target: Path = parser.parse_args().out
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "result.mp4"
        animate(
            SAMPLES / "portrait.jpg",
            SAMPLES / "driving.mp4",
            output,
            pipeline="preview",
            parameters={"motion": "absolute"},
        )
        driving, result = frames_of(SAMPLES / "driving.mp4"), frames_of(output)
    portrait = np.asarray(Pillow.open(SAMPLES / "portrait.jpg").convert("RGB"))
    rows = [joined([portrait, *pair]) for pair in zip(driving, result, strict=True)]
    first, *others = [Pillow.fromarray(row) for row in rows]
    first.save(
        target, save_all=True, append_images=others, duration=round(1000 / FPS), loop=0, quality=60, method=6
    )
    print(f"{target}: {len(rows)} frames, {target.stat().st_size / 1e6:.2f} MB")


def frames_of(path: Path) -> list[Image]:
    """Return the frames that are shown, at the animation's rate."""
    with VideoReader(path) as reader:
        frames = [(frame.time, frame.image) for frame in reader]
    times = np.array([time for time, _ in frames])
    return [frames[int(np.abs(times - wanted).argmin())][1] for wanted in np.arange(START, END, 1 / FPS)]


def joined(pictures: list[Image]) -> Image:
    """Return pictures side by side on white, each cut to a square from its middle."""
    tiles = [np.full((SIDE, GAP, 3), 255, np.uint8)] * (2 * len(pictures) - 1)
    for number, picture in enumerate(pictures):
        side = min(picture.shape[:2])
        top, left = (picture.shape[0] - side) // 2, (picture.shape[1] - side) // 2
        square = Pillow.fromarray(picture[top : top + side, left : left + side])
        tiles[2 * number] = np.asarray(square.resize((SIDE, SIDE), Pillow.Resampling.LANCZOS))
    return np.concatenate(tiles, axis=1)


if __name__ == "__main__":
    main()
