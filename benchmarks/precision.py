"""What each way to be fast costs: whole sessions against the same session in float32, nothing compiled.

    python -m benchmarks.precision                                     # small random weights, any machine
    python -m benchmarks.precision --size released --device cuda --side 512
    python -m benchmarks.precision --only float16 --only float8 --driver noise

Weights, noise and frames are seeded and the same for all. Printed are the largest relative errors ‖a - b‖/‖b‖ of
any chunk of the predicted noise, the clean latents and the frames, and the lowest PSNR of any chunk's frames in dB.
The first chunk has a separate row: the motion networks' half precision shows there most. Another autoencoder is
another picture: of its rows only the latents are the same thing.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from personalive.errors import InputError
from personalive.media.types import Frames
from personalive.pipelines.base import FrameChunk
from personalive.pipelines.diffusion.checkpoints.random_weights import VARIANTS, build_random_components
from personalive.pipelines.diffusion.device.devices import resolve_device, resolve_dtype
from personalive.pipelines.diffusion.parameters import PersonaLiveLoadParameters
from personalive.pipelines.diffusion.pipeline import PersonaLivePipeline
from personalive.pipelines.diffusion.profiling.engine_benchmark import device_name, make_synthetic_frames
from personalive.pipelines.parameters import build_parameters

CHUNK = 4
STAGES = ("noise_pred", "latents", "frames")
EXACT: Mapping[str, object] = {"dtype": "float32", "compile": "off"}
OPTIONS: Mapping[str, Mapping[str, object]] = {
    "float32 graphs": {"dtype": "float32", "compile": "graphs"},
    "float32 full": {"dtype": "float32", "compile": "full"},
    "float16": {"dtype": "float16", "compile": "off"},
    "float16 graphs": {"dtype": "float16", "compile": "graphs"},
    "float16 full": {"dtype": "float16", "compile": "full"},
    "bfloat16": {"dtype": "bfloat16", "compile": "off"},
    "float8": {"dtype": "float8", "compile": "off"},
    "float8 unet": {"dtype": "float8", "float8_layers": "unet", "compile": "off"},
    "float8 decoder": {"dtype": "float8", "float8_layers": "decoder", "compile": "off"},
    "float8 all": {"dtype": "float8", "float8_layers": "all", "compile": "off"},
    "float8 full": {"dtype": "float8", "compile": "full"},
    "float16 tiny": {"dtype": "float16", "compile": "off", "vae": "tiny"},
}

Session = list[dict[str, Tensor]]
"""Of each chunk, every stage's result on the CPU."""


@dataclass(frozen=True)
class Error:
    """The largest relative errors of some chunks, and the lowest PSNR in dB (of frames in [0, 1])."""

    noise: float
    latents: float
    frames: float
    psnr: float


def driver(kind: str, count: int, side: int) -> Frames:
    """Frames of that kind: soft waves that drift, or noise, uint8 (count, side, side, 3)."""
    if kind == "waves":
        return make_synthetic_frames(count, side, side)
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def session(settings: Mapping[str, object], frames: Frames, args: argparse.Namespace) -> Session:
    """Run a whole session with these settings."""
    given = {"height": args.side, "width": args.side, "face_detection": False, "device": args.device}
    load = build_parameters(PersonaLiveLoadParameters, {**given, **settings})
    device = resolve_device(load.device)
    models = build_random_components(
        VARIANTS[args.size], device=device, dtype=resolve_dtype(load.dtype, device)
    )
    recorded: Session = []
    with PersonaLivePipeline(models, load) as pipeline:
        reference = pipeline.fuse(frames[0], allow_no_face=True)

        def record(stage: str, value: Tensor) -> None:
            if stage in STAGES:
                recorded[-1][stage] = value.float().cpu()

        with pipeline.open_session(reference, trace=record) as own:
            for begin in range(0, len(frames), CHUNK):
                recorded.append({})
                own.step(FrameChunk(frames[begin : begin + CHUNK], np.zeros(CHUNK)))
    return recorded


def errors(ours: Session, exact: Session) -> Error:
    """Of these chunks."""

    def worst(stage: str) -> float:
        return max(
            float((one[stage] - other[stage]).norm() / other[stage].norm())
            for one, other in zip(ours, exact, strict=True)
        )

    mean_square = max(
        float((one["frames"] - other["frames"]).square().mean())
        for one, other in zip(ours, exact, strict=True)
    )
    psnr = -10 * math.log10(mean_square) if mean_square else math.inf
    return Error(worst("noise_pred"), worst("latents"), worst("frames"), psnr)


def line(name: str, error: Error) -> str:
    return f"{name:<28}{error.noise:>9.1e}{error.latents:>10.1e}{error.frames:>9.1e}{error.psnr:>9.1f}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--size", choices=sorted(VARIANTS), default="small", help="of the networks")
    parser.add_argument("--side", type=int, default=64, help="of the frames in pixels")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--chunks", type=int, default=13)
    parser.add_argument("--driver", choices=("waves", "noise"), default="waves")
    parser.add_argument("--only", action="append", choices=list(OPTIONS), help="may be repeated")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    frames = driver(args.driver, CHUNK * args.chunks, args.side)
    exact = session(EXACT, frames, args)
    device = device_name(resolve_device(args.device))
    print(f"{args.size} weights, {args.side}×{args.side}, {args.driver}, {device}, torch {torch.__version__}")
    print(f"{'':<28}{'noise':>9}{'latents':>10}{'frames':>9}{'PSNR dB':>9}")
    found: dict[str, Any] = {}
    for name in args.only or OPTIONS:
        try:
            ours = session(OPTIONS[name], frames, args)
        except InputError as error:
            print(f"{name:<28}{error}")
            continue
        rest, first = errors(ours[1:], exact[1:]), errors(ours[:1], exact[:1])
        print(line(name, rest), line(f"{'':4}its first chunk", first), sep="\n", flush=True)
        found[name] = {"rest": asdict(rest), "first": asdict(first)}
    if args.json is not None:
        args.json.write_text(
            json.dumps({"device": device, "torch": torch.__version__, **found}, indent=2) + "\n"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
