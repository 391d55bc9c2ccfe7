"""The streaming pipeline's step: milliseconds a chunk, frames per second, peak memory.

    python -m benchmarks.streaming                                  # small random weights, any machine
    python -m benchmarks.streaming --size released --device cuda    # random weights of the released sizes

Weights are random and the driving frames made up: every network runs as in earnest, without looking for faces.
Medians over the chunks after the warm-up; with `--keyframes` history keyframes are forced, which is when the
window attends to most. What is measured is a whole step, from frames in memory to frames in memory.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time

import numpy as np
import torch

from personalive.pipelines.base import FrameChunk
from personalive.pipelines.diffusion.checkpoints.random_weights import VARIANTS, build_random_components
from personalive.pipelines.diffusion.device.devices import resolve_device, resolve_dtype
from personalive.pipelines.diffusion.parameters import PersonaLiveLoadParameters, PersonaLiveRunParameters
from personalive.pipelines.diffusion.pipeline import PersonaLivePipeline


def frames(count: int, side: int) -> np.ndarray:
    """Return a soft pattern that drifts, uint8 (count, side, side, 3)."""
    y, x, step = np.meshgrid(np.arange(side), np.arange(side), np.arange(count), indexing="ij")
    waves = [np.sin(x / 40 + step / 5), np.sin(y / 30 - step / 7), np.sin((x + y) / 50 + step / 9)]
    picture = (127 + 100 * np.stack(waves, axis=-1)).astype(np.uint8)
    return np.ascontiguousarray(picture.transpose(2, 0, 1, 3))


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed_steps(pipeline: PersonaLivePipeline, device: torch.device, args: argparse.Namespace) -> list[float]:
    """Milliseconds of each step; the first `args.warmup` are not counted."""
    clip = frames(4 * 8, args.side)
    reference = pipeline.fuse(clip[0])
    threshold = 0.0 if args.keyframes else 1e9
    took = []
    with pipeline.open_session(reference, PersonaLiveRunParameters(keyframe_threshold=threshold)) as session:
        for chunk in range(args.warmup + args.chunks):
            part = clip[np.arange(4 * chunk, 4 * chunk + 4) % len(clip)]
            wait(device)
            begun = time.perf_counter()
            session.step(FrameChunk(part, np.zeros(4)))
            took.append(1000 * (time.perf_counter() - begun))
    return took[args.warmup :]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--size", choices=sorted(VARIANTS), default="small", help="of the networks")
    parser.add_argument("--side", type=int, default=512, help="of the frames in pixels")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--vae", default="full", choices=("full", "tiny"))
    parser.add_argument("--warmup", type=int, default=14)
    parser.add_argument("--chunks", type=int, default=30)
    parser.add_argument("--keyframes", action="store_true")
    args = parser.parse_args()
    device = resolve_device(args.device)
    dtype = resolve_dtype(args.dtype, device)
    models = build_random_components(VARIANTS[args.size], device=device, dtype=dtype)
    load = PersonaLiveLoadParameters(
        height=args.side, width=args.side, vae=args.vae, face_detection=False, max_keyframes=3
    )
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with PersonaLivePipeline(models, load) as pipeline:
        took = timed_steps(pipeline, device, args)
    middle = statistics.median(took)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    print(
        f"{args.size} weights, {args.side}×{args.side}, {dtype}, {args.vae} vae, {name}, torch {torch.__version__}"
    )
    print(f"{'keyframes':>9}  {'ms/chunk':>8}  {'fastest':>8}  {'fps':>6}  {'peak GB':>7}")
    peak = torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else float("nan")
    keyframes = 3 if args.keyframes else 0
    print(f"{keyframes:>9}  {middle:>8.1f}  {min(took):>8.1f}  {4000 / middle:>6.1f}  {peak:>7.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
