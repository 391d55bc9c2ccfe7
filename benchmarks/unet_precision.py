"""What half precision costs the denoising UNet: its predicted noise against float32's.

    python -m benchmarks.unet_precision                              # small random weights, any CPU
    python -m benchmarks.unet_precision --size released --device cuda

Weights and inputs are random and seeded, everything else is the real network: a window of 16 frames at four
noise levels, a reference and, in the second row of each type, one history keyframe. Printed are the worst
frame's relative error ‖a - b‖/‖b‖ of each noise level, oldest (least noisy) frames first.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from personalive.pipelines.diffusion.checkpoints.random_weights import VARIANTS, random_state_dict
from personalive.pipelines.diffusion.networks.denoising_unet import DenoisingUNet
from personalive.pipelines.diffusion.networks.reference_unet import ReferenceUNet
from tests.pipelines.diffusion.conditioning import build_conditioning

TIMESTEPS = (0, 333, 666, 999)
CHUNK = 4

Network = TypeVar("Network", bound=torch.nn.Module)


def noise_predictions(size: str, latent: int, device: torch.device, dtype: torch.dtype) -> list[Tensor]:
    """ε (1, 4, 16, h, w) as float32, without and with a history keyframe."""
    sizes = VARIANTS[size].sizes
    references = fill(lambda: ReferenceUNet(sizes.reference_unet), "reference_unet", device, dtype)
    unet = fill(lambda: DenoisingUNet(sizes.denoising_unet), "denoising_unet", device, dtype)
    widths, context = sizes.denoising_unet.block_out_channels, sizes.denoising_unet.cross_attention_width
    frames = CHUNK * len(TIMESTEPS)
    random = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random).to(device, dtype)

    image_embeds, latents = normal(1, 1, context), normal(1, 4, frames, latent, latent)
    motion, pose = normal(1, frames, 32, 16), 0.1 * normal(1, widths[0], frames, latent, latent)
    cross = references.compute_cross_constants(image_embeds)
    banks = [references(normal(1, 4, latent, latent), cross) for _ in range(2)]
    timesteps = torch.tensor(TIMESTEPS, device=device).repeat_interleave(CHUNK)

    def predict(seen: list[tuple[Tensor, ...]]) -> Tensor:
        conditions = build_conditioning(
            unet, timesteps=timesteps, motion=motion, pose=pose, image_embeds=image_embeds, banks=seen
        )
        noise: Tensor = unet(latents, conditions).float()
        return noise

    return [predict(banks[:1]), predict(banks)]


def fill(build: Callable[[], Network], name: str, device: torch.device, dtype: torch.dtype) -> Network:
    with torch.device("meta"):
        network = build()
    network.load_state_dict(random_state_dict(name, network, seed=0), assign=True)
    return network.to(device, dtype).eval()


def worst(noise: Tensor, exact: Tensor) -> list[float]:
    """Per noise level, the largest relative error of its frames."""
    frames = (tensor[0].transpose(0, 1).flatten(1).double() for tensor in (noise, exact))
    ours, theirs = frames
    errors = (ours - theirs).norm(dim=1) / theirs.norm(dim=1)
    levels: list[float] = errors.view(-1, CHUNK).amax(dim=1).tolist()
    return levels


@torch.inference_mode()
def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--size", choices=sorted(VARIANTS), default="small")
    parser.add_argument("--latent", type=int, default=16, help="side of the latents; 64 is 512 pixels")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    device = torch.device(args.device)
    exact = noise_predictions(args.size, args.latent, device, torch.float32)
    print(
        f"{args.size} weights, latents {args.latent}×{args.latent}, {args.device}, torch {torch.__version__}"
    )
    print(f"{'':>10} {'keyframes':>9}  " + "  ".join(f"t = {timestep:<4}" for timestep in TIMESTEPS))
    for dtype in (torch.float16, torch.bfloat16):
        predicted = noise_predictions(args.size, args.latent, device, dtype)
        for keyframes, (noise, reference) in enumerate(zip(predicted, exact, strict=True)):
            errors = "  ".join(f"{error:8.1e}" for error in worst(noise, reference))
            print(f"{str(dtype).removeprefix('torch.'):>10} {keyframes:>9}  {errors}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
