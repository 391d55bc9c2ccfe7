"""The conditioning of a denoising UNet from plain inputs, everything computed at once."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from personalive.pipelines.diffusion.networks.denoising_unet import Conditioning, DenoisingUNet, concat_banks


def build_conditioning(
    unet: DenoisingUNet,
    *,
    timesteps: Tensor,
    motion: Tensor,
    pose: Tensor,
    image_embeds: Tensor,
    banks: Sequence[Sequence[Tensor]],
) -> Conditioning:
    """Compute the conditioning from plain inputs.

    timesteps (F,); motion tokens (S, F, tokens, motion_width); pose features (S, C, F, h, w);
    image_embeds (S, 1, width); banks: the reference's, then each history keyframe's in the order they
    were added, each as `ReferenceUNet` returns them.
    """
    projected = [unet.project_banks(bank) for bank in banks]
    return Conditioning(
        time=unet.compute_time_features(timesteps),
        motion=unet.project_motion(motion.flatten(0, 1)),
        pose=pose,
        banks=concat_banks(projected),
        cross=unet.compute_cross_constants(image_embeds),
    )
