from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from personalive.pipelines.diffusion.networks.denoising_unet import DenoisingUNet, DenoisingUNetParams
from personalive.pipelines.diffusion.networks.reference_unet import ReferenceUNet
from personalive.pipelines.diffusion.networks.unet import UNetParams
from tests.parity.cases import case_files
from tests.parity.networks import bank_statistics
from tests.pipelines.diffusion import recipe
from tests.pipelines.diffusion.conditioning import build_conditioning
from tests.pipelines.diffusion.figures import TOLERANCE, Case, filled, relative_errors

TIMESTEPS = torch.tensor([0, 333, 666, 999]).repeat_interleave(4)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("path", case_files("unet"))
def test_full_size_unets_compute_the_published_figures(path: Path) -> None:
    case = Case.load(path)

    def array(key: str, *shape: int) -> Tensor:
        return torch.from_numpy(recipe.array(f"{case.salt}full/{key}", shape))

    image_embeds = array("image_embeds", 1, 1, 768)
    references = filled(lambda: ReferenceUNet(UNetParams()), f"{case.salt}reference_unet")
    cross = references.compute_cross_constants(image_embeds)
    banks = references(array("latent", 1, 4, 16, 16), cross)
    keyframe = references(array("keyframe_latent", 1, 4, 16, 16), cross)
    assert relative_errors(bank_statistics(banks), case.tensor("bank_stats")).max() <= TOLERANCE
    del references

    unet = filled(lambda: DenoisingUNet(DenoisingUNetParams()), f"{case.salt}denoising_unet")
    sources = {"noise_pred": [banks], "noise_pred_keyframe": [banks, keyframe]}
    for name, seen in sources.items():
        conditions = build_conditioning(
            unet,
            timesteps=TIMESTEPS,
            motion=array("motion", 1, 16, 32, 16),
            pose=0.1 * array("pose", 1, 320, 16, 16, 16),
            image_embeds=image_embeds,
            banks=seen,
        )
        noise = unet(array("latents16", 1, 4, 16, 16, 16), conditions)
        errors = relative_errors(noise[0].transpose(0, 1), case.tensor(name)[0].transpose(0, 1))
        assert errors.max() <= TOLERANCE, name
