"""Its numbers are checked with the keypoints that are made of them: ../test_keypoints.py."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from personalive.pipelines.diffusion.networks.convnext import GRN, ConvNeXtBlock, LayerNorm2d
from personalive.pipelines.diffusion.networks.motion_extractor import (
    MotionExtractor,
    MotionExtractorParams,
)
from tests.pipelines.diffusion.figures import (
    assert_near,
    entries,
    filled,
    on_meta,
    relative_errors,
    released_entries,
)

SMALL = MotionExtractorParams(depths=(1, 1, 2, 1), widths=(12, 24, 48, 96), image_size=64)


def make_small() -> MotionExtractor:
    return filled(lambda: MotionExtractor(SMALL), "small/motion_extractor")


@pytest.fixture(scope="module")
def small() -> MotionExtractor:
    return make_small()


@pytest.fixture
def frames() -> Tensor:
    return torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def test_its_entries_are_the_released_ones(extractor: MotionExtractor) -> None:
    assert entries(extractor) == released_entries()["motion_extractor"]


def test_constants_are_real_where_weights_are_not() -> None:
    with torch.device("meta"):
        extractor = MotionExtractor(MotionExtractorParams())
    assert on_meta(extractor, constants=["idx_tensor"])
    assert extractor.idx_tensor.tolist() == list(range(66))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_motion_is_float32_in_every_precision(
    small: MotionExtractor, frames: Tensor, dtype: torch.dtype
) -> None:
    motion, exact = make_small().to(dtype)(frames.to(dtype)), small(frames)
    sizes = {"keypoints": (3, 21, 3), "scale": (3, 1), "pitch": (3,), "translation": (3, 3)}
    for name, size in sizes.items():
        assert getattr(motion, name).shape == size
    for ours, theirs in zip(motion, exact, strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, theirs, rtol=0.05, atol=0.3)


def test_frames_do_not_see_each_other(small: MotionExtractor, frames: Tensor) -> None:
    together = small(frames)
    for index in range(len(frames)):
        for ours, alone in zip(together, small(frames[index : index + 1]), strict=True):
            torch.testing.assert_close(ours[index], alone[0], rtol=1e-4, atol=1e-4)


def test_memory_format_does_not_matter(small: MotionExtractor, frames: Tensor) -> None:
    """An angle is a mean of degrees up to 97.5, so that is what it rounds with."""
    last = small(frames.contiguous(memory_format=torch.channels_last))
    for ours, theirs in zip(last, small(frames), strict=True):
        assert_near(ours, theirs, largest=97.5)


@pytest.mark.parametrize(("place", "degrees"), [(0, -97.5), (33, 1.5), (65, 97.5)])
def test_an_angle_is_the_mean_of_its_bins(frames: Tensor, place: int, degrees: float) -> None:
    extractor = make_small()
    head = extractor.detector.fc_yaw
    head.weight.zero_()
    head.bias.copy_(100 * F.one_hot(torch.tensor(place), 66))
    assert_near(extractor(frames).yaw, torch.full((3,), degrees), largest=97.5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_layer_norm_computes_in_float32(dtype: torch.dtype) -> None:
    norm = filled(lambda: LayerNorm2d(16), "norm").to(dtype)
    x = (30 + torch.randn(2, 16, 5, 4, generator=torch.Generator().manual_seed(0))).to(dtype)
    wide = x.double()
    centred = wide - wide.mean(dim=1, keepdim=True)
    expected = centred / (centred.square().mean(dim=1, keepdim=True) + 1e-6).sqrt()
    expected = expected * norm.weight.double()[:, None, None] + norm.bias.double()[:, None, None]
    assert norm(x).dtype == dtype
    torch.testing.assert_close(norm(x), expected.to(dtype))


def test_response_norm_is_its_formula() -> None:
    norm = filled(lambda: GRN(5), "response")
    x = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    for picture, ours in zip(x, norm(x), strict=True):
        energy = torch.stack([picture[..., channel].square().sum().sqrt() for channel in range(5)])
        share = energy / (energy.sum() / 5 + 1e-6)
        assert_near(ours, norm.gamma[0] * picture * share + norm.beta[0] + picture)


def test_response_norm_survives_energies_beyond_float16() -> None:
    norm = GRN(2).requires_grad_(False).half()
    norm.gamma.fill_(1.0)
    x = torch.full((1, 64, 64, 2), 2000.0, dtype=torch.float16)
    assert torch.equal(norm(x), 2 * x)


def test_a_block_keeps_pictures_channels_last() -> None:
    block = filled(lambda: ConvNeXtBlock(8), "block")
    x = torch.rand(2, 8, 9, 9).contiguous(memory_format=torch.channels_last)
    assert block(x).is_contiguous(memory_format=torch.channels_last)


def test_any_number_of_keypoints_and_stages_will_do() -> None:
    params = MotionExtractorParams(depths=(1, 1), widths=(8, 16), keypoints=5, bins=11, image_size=24)
    motion = filled(lambda: MotionExtractor(params), "other/motion_extractor")(torch.rand(2, 3, 24, 24))
    assert motion.keypoints.shape == (2, 5, 3)
    assert motion.roll.abs().max() < 15


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"depths": (3, 3)}, "each stage needs a depth and a width"),
        ({"depths": (), "widths": ()}, "each stage needs"),
        ({"bins": 0}, "every size must be positive"),
        ({"image_size": 250}, "no multiple of 32 pixels"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(values: dict[str, int], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        MotionExtractorParams(**values)  # type: ignore[arg-type]


def test_frames_of_another_size_are_refused(small: MotionExtractor) -> None:
    with pytest.raises(ValueError, match="64×64"):
        small(torch.zeros(1, 3, 32, 64))


@pytest.mark.slow
def test_half_precision_comes_near_at_full_size(extractor: MotionExtractor) -> None:
    frames = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(2))
    half = filled(lambda: MotionExtractor(MotionExtractorParams()), "motion_extractor").bfloat16()
    ours, exact = half(frames.bfloat16()).keypoints, extractor(frames).keypoints
    assert relative_errors(ours, exact) < 0.05
