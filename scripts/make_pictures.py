"""Make the pictures of README and docs from the sample, with the pipeline as it is.

python scripts/make_pictures.py          # writes docs/images/
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


def frames_of(path: Path) -> list[Image]:
    with VideoReader(path) as reader:
        return [frame.image for frame in reader]


def tiled(frames: list[Image], columns: int, tile: int) -> Image:
    small = [
        np.asarray(Pillow.fromarray(frame).resize((tile, tile), Pillow.Resampling.LANCZOS))
        for frame in frames
    ]
    rows = [np.concatenate(small[k : k + columns], axis=1) for k in range(0, len(small), columns)]
    return np.ascontiguousarray(np.concatenate(rows, axis=0), np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--out", type=Path, default=ROOT / "docs/images", help="folder to write to")
    target: Path = parser.parse_args().out
    target.mkdir(parents=True, exist_ok=True)
    driving = frames_of(SAMPLES / "driving.mp4")
    with tempfile.TemporaryDirectory() as folder:
        for motion in ("relative", "absolute"):
            output = Path(folder) / f"{motion}.mp4"
            animate(
                SAMPLES / "portrait.jpg",
                SAMPLES / "driving.mp4",
                output,
                pipeline="preview",
                parameters={"motion": motion},
            )
            result = frames_of(output)
            moments = [0, 36, 50, 80, 102, 130, 155, 186]
            strip = [driving[k] for k in moments] + [result[k] for k in moments]
            Pillow.fromarray(tiled(strip, len(moments), 200)).save(target / f"strip-{motion}.jpg", quality=88)
            every = np.linspace(0, len(result) - 1, 24).astype(int)
            pairs = [
                frames[k]
                for start in (0, 8, 16)
                for frames in (driving, result)
                for k in every[start : start + 8]
            ]
            Pillow.fromarray(tiled(pairs, 8, 160)).save(target / f"contact-sheet-{motion}.jpg", quality=85)
    print(*sorted(str(path) for path in target.iterdir()), sep="\n")


if __name__ == "__main__":
    main()
