"""A session that runs for hours: its memory must stay where it was after the first minutes.

    python -m benchmarks.long_drive                 # two hours of driving at 25 frames per second
    python -m benchmarks.long_drive --minutes 10

The smallest networks that have all parts, random weights, 64×64 pixels: what is kept from step to step is the
same in kind as with the released weights. Resident memory is read after every hundred steps; the state's own
bytes after the last.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.streaming import frames
from personalive.pipelines.base import FrameChunk
from personalive.pipelines.diffusion.checkpoints.random_weights import VARIANTS, build_random_components
from personalive.pipelines.diffusion.networks.denoising_unet import DenoisingUNetParams
from personalive.pipelines.diffusion.networks.motion_encoder import MotionEncoderParams
from personalive.pipelines.diffusion.networks.motion_extractor import MotionExtractorParams
from personalive.pipelines.diffusion.networks.unet import UNetParams
from personalive.pipelines.diffusion.parameters import PersonaLiveLoadParameters, PersonaLiveRunParameters
from personalive.pipelines.diffusion.pipeline import PersonaLivePipeline

SIDE, CHUNK, FPS = 64, 4, 25
LIMIT = 1.02
SETTLED = 0.1
"""Share of the run after which memory should not grow any more: allocators fill their pools first."""


SMALL = VARIANTS["small"]
LEAST = replace(
    SMALL,
    sizes=replace(
        SMALL.sizes,
        reference_unet=UNetParams(
            block_out_channels=(32, 32), layers_per_block=1, heads=2, cross_attention_width=32
        ),
        denoising_unet=DenoisingUNetParams(
            block_out_channels=(32, 32), layers_per_block=1, heads=2, cross_attention_width=32
        ),
        motion_encoder=MotionEncoderParams(
            image_size=64,
            stem=8,
            outer_width=32,
            inner_width=32,
            attention_width=32,
            attention_heads=2,
            features=64,
        ),
        motion_extractor=MotionExtractorParams(depths=(1, 1), widths=(8, 16), image_size=64),
    ),
)


def resident() -> float:
    """Resident memory of this process in MB."""
    if sys.platform == "win32":
        raise SystemExit("This reads /proc, which only Linux has.")
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--minutes", type=float, default=120.0, help="of driving")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    steps = int(args.minutes * 60 * FPS / CHUNK)
    clip = frames(64 * CHUNK, SIDE)
    load = PersonaLiveLoadParameters(height=SIDE, width=SIDE, face_detection=False)
    memory: list[float] = []
    begun = time.perf_counter()
    with PersonaLivePipeline(build_random_components(LEAST, device=torch.device("cpu")), load) as pipeline:
        every_expression_is_new = PersonaLiveRunParameters(keyframe_threshold=0.0)
        with pipeline.open_session(pipeline.fuse(clip[0]), every_expression_is_new) as session:
            for step in range(steps):
                part = clip[np.arange(CHUNK * step, CHUNK * (step + 1)) % len(clip)]
                session.step(FrameChunk(part, np.full(CHUNK, step / FPS)))
                if step % 100 == 99:
                    memory.append(resident())
                if step % 1500 == 1499:
                    driven = (step + 1) * CHUNK / FPS / 60
                    print(f"  {driven:.0f} min driven: {memory[-1]:.0f} MB", file=sys.stderr, flush=True)
            state = len(session.snapshot() or b"")
    seconds = time.perf_counter() - begun
    settled = memory[int(len(memory) * SETTLED)]
    ratio = max(memory[int(len(memory) * SETTLED) :]) / settled
    print(f"{steps} steps, {args.minutes:g} minutes of driving, in {seconds / 60:.1f} minutes")
    print(f"memory {settled:.0f} MB settled, {memory[-1]:.0f} MB at the end, at most {ratio:.3f} of settled")
    print(f"the session's snapshot: {state / 1e6:.2f} MB")
    return 0 if ratio <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
