"""The networks of a case, with its synthetic weights."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from personalive.pipelines.personalive.networks.denoising_unet import DenoisingUNet, DenoisingUNetParams
from personalive.pipelines.personalive.networks.motion_encoder import MotionEncoder, MotionEncoderParams
from personalive.pipelines.personalive.networks.motion_extractor import MotionExtractor, MotionExtractorParams
from personalive.pipelines.personalive.networks.pose_guider import PoseGuider, PoseGuiderParams
from personalive.pipelines.personalive.networks.reference_unet import ReferenceUNet
from personalive.pipelines.personalive.networks.trunk import UNetParams
from tests.pipelines.personalive import recipe
from tests.pipelines.personalive.figures import filled

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
    def vae(self) -> Any:
        return _library(
            AutoencoderKL(  # type: ignore[no-untyped-call]
                block_out_channels=(32,) * 4,
                layers_per_block=1,
                latent_channels=4,
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
            ),
            f"{self.salt}vae",
        )

    @cached_property
    def image_encoder(self) -> Any:
        config = CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            image_size=224,
            patch_size=32,
            projection_dim=CONTEXT,
            hidden_act="quick_gelu",
        )
        return _library(CLIPVisionModelWithProjection(config), f"{self.salt}image_encoder")


def bank_statistics(banks: tuple[Tensor, ...]) -> Tensor:
    """Mean, standard deviation and element 7 of each bank (16, 3), in the figures' order."""
    return torch.stack(
        [torch.stack([banks[i].mean(), banks[i].std(), banks[i].flatten()[7]]) for i in STATISTICS_ORDER]
    )


def _library(network: Any, name: str) -> Any:
    """A library's network, which has its constants in place, with the synthetic weights of that name."""
    state = {
        key: torch.from_numpy(np.asarray(recipe.weight(name, key, value.shape)))
        for key, value in network.state_dict().items()
    }
    network.load_state_dict(state, assign=True)
    return network.requires_grad_(False).eval()
