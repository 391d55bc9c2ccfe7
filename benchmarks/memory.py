"""Peak memory by length of video: it should be the same for ten seconds and for ten minutes.

    python -m benchmarks.memory                    # a whole animation with the preview pipeline
    python -m benchmarks.memory --job copy         # reading, resampling and writing alone

Each job runs in a separate process, whose peak resident size the system keeps. To measure another job, add
a function to `JOBS` that takes the paths of a clip and of its output.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from personalive.jobs import AnimateJob
from personalive.jobs import run as run_job
from personalive.media import (
    AudioTrack,
    Image,
    Provenance,
    VideoReader,
    fit_image,
    open_driving,
    open_writer,
    resample,
)
from personalive.process_memory import peak_rss_bytes

SAMPLES = Path(__file__).resolve().parent.parent / "src/personalive/samples"
WIDTH, HEIGHT, FPS = 640, 360, 25
SAMPLE_RATE = 48_000


def copy_clip(clip: Path, output: Path) -> None:
    """Read, resample and write with sound: everything but the animation."""
    provenance = Provenance("benchmark", "copy")
    with open_driving(clip) as driving:
        info = driving.info
        with open_writer(
            output,
            width=info.width,
            height=info.height,
            fps=30,
            provenance=provenance,
            audio=AudioTrack(clip),
        ) as writer:
            for frame in resample(driving, 30):
                writer.write(frame.image)


def animate_clip(clip: Path, output: Path) -> None:
    """Run a whole job with the preview pipeline: decode, track, warp, encode, sound."""
    run_job(AnimateJob(reference=SAMPLES / "portrait.jpg", driving=clip, output=output, pipeline="preview"))


JOBS: dict[str, Callable[[Path, Path], None]] = {"copy": copy_clip, "animate": animate_clip}


def faces() -> Iterator[Image]:
    """Return the sample's driver, over and over."""
    with VideoReader(SAMPLES / "driving.mp4") as reader:
        cycle = [fit_image(frame.image, (HEIGHT, HEIGHT)) for frame in reader]
    side = np.zeros((HEIGHT, (WIDTH - HEIGHT) // 2, 3), np.uint8)
    while True:
        for face in cycle:
            yield np.ascontiguousarray(np.concatenate([side, face, side], axis=1))


def waves() -> Iterator[Image]:
    """Soft waves that drift, which compress well, for as long as anyone asks."""
    x, y = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    cycle = []
    for step in range(FPS):
        angle = 2 * np.pi * step / FPS
        bands = [np.sin(x / 40 + angle), np.sin(y / 30 - angle), np.sin((x + y) / 50 + angle)]
        cycle.append((127 + 100 * np.stack(bands, axis=2)).astype(np.uint8))
    while True:
        yield from cycle


def make_clip(path: Path, seconds: int, pictures: Iterator[Image]) -> None:
    """Write a clip with sound as fast as the encoder goes."""
    with av.open(str(path), "w") as container:
        options = {"preset": "ultrafast", "crf": "30"}
        video = container.add_stream("libx264", rate=FPS, options=options)
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        audio = container.add_stream("aac", rate=SAMPLE_RATE)
        samples = SAMPLE_RATE // FPS
        for index, image in zip(range(seconds * FPS), pictures, strict=False):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = index
            container.mux(video.encode(frame))
            phase = np.arange(index * samples, (index + 1) * samples) * (2 * np.pi * 440 / SAMPLE_RATE)
            tone = (0.3 * np.sin(phase)).astype(np.float32)
            sound = av.AudioFrame.from_ndarray(np.stack([tone, tone]), format="fltp", layout="stereo")
            sound.sample_rate, sound.pts = SAMPLE_RATE, index * samples
            sound.time_base = Fraction(1, SAMPLE_RATE)
            container.mux(audio.encode(sound))
        container.mux(video.encode(None))
        container.mux(audio.encode(None))


def measure(job: str, clip: Path, output: Path) -> tuple[float, float]:
    """Run a job in a fresh process; return its peak resident size in MB and its seconds."""
    command = [sys.executable, "-m", "benchmarks.memory", "--job", job, "--run", str(clip), str(output)]
    result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return float(result["peak_mb"]), float(result["seconds"])


def run(job: str, clip: Path, output: Path) -> None:
    """Do the job here and print what it took."""
    begun = time.perf_counter()
    JOBS[job](clip, output)
    seconds = time.perf_counter() - begun
    print(json.dumps({"peak_mb": peak_rss_bytes() / 1e6, "seconds": seconds}))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--job", choices=sorted(JOBS), default="animate")
    parser.add_argument("--seconds", type=int, nargs=2, default=(10, 600), metavar=("SHORT", "LONG"))
    parser.add_argument("--output", default=".mp4", help="suffix of the output: .mp4, .webm or .gif")
    parser.add_argument("--limit", type=float, default=1.10, help="the greatest ratio that passes")
    parser.add_argument("--run", type=Path, nargs=2, metavar=("CLIP", "OUTPUT"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        run(args.job, *args.run)
        return 0
    peaks = []
    print(f"{'length':>8}  {'peak':>9}  {'time':>8}")
    with tempfile.TemporaryDirectory() as name:
        for seconds in args.seconds:
            clip = Path(name) / f"{seconds}.mp4"
            make_clip(clip, seconds, faces() if args.job == "animate" else waves())
            peak, took = measure(args.job, clip, Path(name) / f"out-{seconds}{args.output}")
            peaks.append(peak)
            print(f"{seconds:>6} s  {peak:>6.0f} MB  {took:>6.1f} s", flush=True)
    ratio = peaks[1] / peaks[0]
    print(f"ratio {ratio:.2f} (at most {args.limit:.2f})")
    return 0 if ratio <= args.limit else 1


if __name__ == "__main__":
    sys.exit(main())
