"""Ours against the published research code, in turn, in one process on one machine.

    python -m benchmarks.upstream --path DIR                    # a checkout of the research code, yours to get
    python -m benchmarks.upstream --path DIR --keyframes 0 --keyframes 3 --set compile=full

Both get the same set of random weights (float16, released sizes: 6 GB in a temporary folder, see TMPDIR), the same
frames at 512×512 and the same number of history keyframes. They take turns, a block of chunks each; printed are the
medians over all of a side's chunks and their ratio. What is measured is a chunk, from frames in memory to frames in
memory: ours gives uint8, theirs floats, and neither looks for faces. A third row is our whole step as sessions run
it, on the shipped clip, with faces looked for on a thread ahead of it; the research code leaves that to its caller.

The research code needs more packages (diffusers, transformers, omegaconf, einops, torchvision, decord, …);
nothing of it is in here.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image as Pillow

from personalive.cli.set_options import parse_settings
from personalive.pipelines.diffusion.checkpoints import layout
from personalive.pipelines.diffusion.checkpoints.random_weights import write_random_weights
from personalive.pipelines.diffusion.parameters import PersonaLiveLoadParameters
from personalive.pipelines.diffusion.pipeline import PersonaLivePipeline
from personalive.pipelines.diffusion.profiling.engine_benchmark import (
    EngineBenchmark,
    device_name,
    make_synthetic_frames,
)
from personalive.pipelines.diffusion.profiling.session_benchmark import SessionBenchmark
from personalive.pipelines.parameters import build_parameters

SIDE, CHUNK = 512, 4
BASE_UNET = {
    "_class_name": "UNet2DConditionModel",
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": [*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"],
    "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 3],
    "block_out_channels": [320, 640, 1280, 1280],
    "layers_per_block": 2,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}
"""Sizes of Stable Diffusion 1.x: the research code builds both UNets from them before it reads its own files."""
NEVER, ALWAYS = float("inf"), -1.0
_LEAD_IN = 14
"""Chunks after which all keyframes have been taken, where they are taken as early as can be."""


class Theirs:
    """The research code, loaded from its checkout; only its public calls are used."""

    def __init__(self, path: Path, weights: Path, device: str = "cuda") -> None:
        self._device = device
        sys.path.insert(0, str(path))
        try:
            from src.wrapper import PersonaLive  # type: ignore[import-not-found]
        except ImportError as error:
            raise SystemExit(f"The research code in {path} cannot be imported: {error}.") from None
        with tempfile.NamedTemporaryFile("w", suffix=".json") as config:
            json.dump(_their_config(path, weights), config)
            config.flush()
            self._model: Any = PersonaLive(SimpleNamespace(config_path=config.name), device=device)
        self._look = self._model.calculate_dis
        self.take_keyframes(NEVER)
        self._frames = make_synthetic_frames(8 * CHUNK, SIDE, SIDE)
        self._chunk = 0
        self._model.fuse_reference(Pillow.fromarray(self._frames[0]))

    def take_keyframes(self, threshold: float) -> None:
        """From now on, of expressions that differ by more than this."""
        look = self._look
        self._model.calculate_dis = lambda bank, new, **_: look(bank, new, threshold=threshold)

    def step(self) -> None:
        """One chunk."""
        begin = CHUNK * self._chunk % len(self._frames)
        frames = torch.from_numpy(self._frames[begin : begin + CHUNK]).to(self._device)
        pixels = (frames.permute(0, 3, 1, 2).float() / 127.5 - 1).half()
        self._model.process_input(pixels)
        self._chunk += 1


def _their_config(path: Path, weights: Path) -> dict[str, Any]:
    own = weights / "personalive"
    return {
        "batch_size": 1,
        "height": SIDE,
        "width": SIDE,
        "reference_image_height": SIDE,
        "reference_image_width": SIDE,
        "temporal_adaptive_step": 4,
        "temporal_window_size": CHUNK,
        "num_inference_steps": 4,
        "dtype": "fp16",
        "seed": 42,
        "vae_model_path": str(weights / layout.VAE_CONFIG.folder),
        "image_encoder_path": str(weights / layout.IMAGE_ENCODER_CONFIG.folder),
        "pretrained_base_model_path": str(weights / layout.BASE_UNET_CONFIG.folder.parent),
        "reference_unet_weight_path": str(own / "reference_unet.pth"),
        "denoising_unet_path": str(own / "denoising_unet.pth"),
        "pose_guider_path": str(own / "pose_guider.pth"),
        "motion_encoder_path": str(own / "motion_encoder.pth"),
        "temporal_module_path": str(own / "temporal_module.pth"),
        "pose_encoder_path": str(own / "motion_extractor.pth"),
        "inference_config": str(path / "configs/inference/inference_stage3.yaml"),
    }


def make_weights(folder: Path) -> Path:
    """Return a random set, with what the research code wants beside it."""
    root = write_random_weights(folder / "weights", variant="released", dtype=torch.float16)
    base = root / layout.BASE_UNET_CONFIG.folder
    base.mkdir(parents=True, exist_ok=True)
    (base / "config.json").write_text(json.dumps(BASE_UNET))
    # Read before the method's own files, which have every entry again.
    (base / "diffusion_pytorch_model.bin").hardlink_to(root / "personalive/reference_unet.pth")
    return root


def timed(step: Callable[[], object], count: int) -> list[float]:
    """Milliseconds of each."""
    took = []
    for _ in range(count):
        torch.cuda.synchronize()
        begun = time.perf_counter()
        step()
        torch.cuda.synchronize()
        took.append(1000 * (time.perf_counter() - begun))
    return took


@contextlib.contextmanager
def ours(weights: Path, settings: list[str]) -> Iterator[tuple[EngineBenchmark, SessionBenchmark]]:
    given = {"device": "cuda", "weights": weights, **parse_settings(settings)}
    with PersonaLivePipeline.load(build_parameters(PersonaLiveLoadParameters, given)) as pipeline:
        bench = EngineBenchmark(pipeline.engine)
        yield bench, SessionBenchmark(pipeline)
        bench.close()


@dataclass(frozen=True)
class Compared:
    """Milliseconds of a chunk with that number of keyframes: all of theirs, ours as the medians of each block."""

    keyframes: int
    theirs: list[float]
    networks: list[float]
    whole: list[float]


def compare(args: argparse.Namespace, weights: Path) -> Iterator[Compared]:
    """For each number of keyframes, in turn."""
    with ours(weights, args.set) as (bench, sessions):
        theirs = Theirs(args.path, weights)
        # Once taken, keyframes stay.
        for keyframes in sorted(set(args.keyframes or [0])):
            theirs.take_keyframes(ALWAYS if keyframes else NEVER)
            timed(theirs.step, _LEAD_IN)
            found = Compared(keyframes, [], [], [])
            for block in range(args.rounds):
                for one, medians in ((bench, found.networks), (sessions, found.whole)):
                    times = one.measure(sessions=1, keyframes=keyframes, steps=args.chunks, warmup=5)
                    medians.append(times.median_ms)
                found.theirs.extend(timed(theirs.step, args.chunks + 5)[5:])
                print(f"round {block + 1} of {args.rounds}", file=sys.stderr, flush=True)
            yield found


def told(found: Compared) -> dict[str, Any]:
    """Print a comparison; its figures for the file."""
    theirs = statistics.median(found.theirs)
    rows = {
        "ours, networks": statistics.median(found.networks),
        "ours, whole": statistics.median(found.whole),
    }
    print(f"{found.keyframes} keyframes")
    print(f"  {'research code':<15}{theirs:7.1f} ms  {1000 * CHUNK / theirs:6.1f} fps")
    for name, ms in rows.items():
        times = f"{theirs / ms:.2f} times as fast"
        print(f"  {name:<15}{ms:7.1f} ms  {1000 * CHUNK / ms:6.1f} fps  {times}", flush=True)
    networks, whole = rows.values()
    return {
        "keyframes": found.keyframes,
        "theirs_ms": np.percentile(found.theirs, [1, 50, 99]).tolist(),
        "networks_ms": networks,
        "whole_ms": whole,
        "networks_ratio": theirs / networks,
        "whole_ratio": theirs / whole,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--path", type=Path, required=True, help="a checkout of the research code")
    parser.add_argument("--keyframes", type=int, choices=(0, 3), action="append", help="may be repeated")
    parser.add_argument("--chunks", type=int, default=15, help="of each side in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a load parameter of ours"
    )
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if not (args.path / "src/wrapper.py").is_file():
        raise SystemExit(f"{args.path} is no checkout of the research code: it has no src/wrapper.py.")
    if not torch.cuda.is_available():
        raise SystemExit("This comparison needs a CUDA device.")
    device = device_name(torch.device("cuda"))
    print(f"{device}, torch {torch.__version__}, {SIDE}×{SIDE}, {args.set or 'defaults'}")
    with tempfile.TemporaryDirectory() as folder:
        found = [told(compared) for compared in compare(args, make_weights(Path(folder)))]
    if args.json is not None:
        facts = {"device": device, "torch": torch.__version__, "set": args.set, "found": found}
        args.json.write_text(json.dumps(facts, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
