"""The networks of a case, with its synthetic weights."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from personalive.pipelines.diffusion.networks.autoencoder import Autoencoder, AutoencoderParams
from personalive.pipelines.diffusion.networks.denoising_unet import DenoisingUNet, DenoisingUNetParams
from personalive.pipelines.diffusion.networks.image_encoder import ImageEncoder, ImageEncoderParams
from personalive.pipelines.diffusion.networks.motion_encoder import MotionEncoder, MotionEncoderParams
from personalive.pipelines.diffusion.networks.motion_extractor import MotionExtractor, MotionExtractorParams
from personalive.pipelines.diffusion.networks.pose_guider import PoseGuider, PoseGuiderParams
from personalive.pipelines.diffusion.networks.reference_unet import ReferenceUNet
from personalive.pipelines.diffusion.networks.unet import UNetParams
from tests.pipelines.diffusion.figures import filled

WIDTHS, CONTEXT = (32, 64, 64, 64), 32
STATISTICS_ORDER = (*range(6), *range(7, 16), 6)
"""The figures list banks down, up, middle; networks give them in the order they run: down, middle, up."""


class StreamNetworks:
    """Small UNets, autoencoder and image encoder; the other networks at full size."""

    def __init__(self, salt: str) -> None:
        self.salt = salt

    @cached_property
    def reference_unet(self) -> ReferenceUNet:
        sizes = UNetParams(block_out_channels=WIDTHS, cross_attention_width=CONTEXT)
        return filled(lambda: ReferenceUNet(sizes), f"{self.salt}reference_unet")

    @cached_property
    def denoising_unet(self) -> DenoisingUNet:
        sizes = DenoisingUNetParams(block_out_channels=WIDTHS, cross_attention_width=CONTEXT)
        return filled(lambda: DenoisingUNet(sizes), f"{self.salt}denoising_unet")

    @cached_property
    def motion_encoder(self) -> MotionEncoder:
        return filled(lambda: MotionEncoder(MotionEncoderParams()), f"{self.salt}motion_encoder")

    @cached_property
    def motion_extractor(self) -> MotionExtractor:
        return filled(lambda: MotionExtractor(MotionExtractorParams()), f"{self.salt}motion_extractor")

    @cached_property
    def pose_guider(self) -> PoseGuider:
        return filled(lambda: PoseGuider(PoseGuiderParams(out_channels=WIDTHS[0])), f"{self.salt}pose_guider")

    @cached_property
    def vae(self) -> Autoencoder:
        sizes = AutoencoderParams(block_out_channels=(32,) * 4, layers_per_block=1)
        return filled(lambda: Autoencoder(sizes), f"{self.salt}vae")

    @cached_property
    def image_encoder(self) -> ImageEncoder:
        sizes = ImageEncoderParams(
            width=32, inner_width=64, layers=2, heads=4, patch_size=32, out_width=CONTEXT
        )
        return filled(lambda: ImageEncoder(sizes), f"{self.salt}image_encoder")


def bank_statistics(banks: tuple[Tensor, ...]) -> Tensor:
    """Mean, standard deviation and element 7 of each bank (16, 3), in the figures' order."""
    return torch.stack(
        [torch.stack([banks[i].mean(), banks[i].std(), banks[i].flatten()[7]]) for i in STATISTICS_ORDER]
    )
