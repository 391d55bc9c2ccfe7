from __future__ import annotations

from dataclasses import replace
from math import cos, sin

import pytest
import torch
from torch import Tensor

from personalive.pipelines.diffusion.networks.face_alignment import FaceAlignmentParams
from personalive.pipelines.diffusion.networks.hourglass import FrozenBatchNorm2d, Hourglass
from personalive.pipelines.diffusion.networks.motion_encoder import MotionEncoder, MotionEncoderParams
from personalive.pipelines.diffusion.networks.patch_attention import (
    PatchAttention,
    sincos_position_encoding_2d,
)
from personalive.pipelines.diffusion.preprocessing.face_crops import crop_faces
from tests.pipelines.diffusion.figures import (
    TOLERANCE,
    Case,
    assert_near,
    entries,
    filled,
    on_meta,
    relative_errors,
    released_entries,
)

POSITIONS = [f"model.att_{place}.pos_embed.pos_embed" for place in (1, 2, 3)]
SMALL = MotionEncoderParams(
    image_size=64,
    stem=8,
    outer_width=16,
    inner_width=32,
    attention_width=64,
    attention_heads=4,
    norm_groups=4,
    landmarks=9,
    features=64,
    tokens=8,
    token_width=6,
)


def make_small() -> MotionEncoder:
    return filled(lambda: MotionEncoder(SMALL), "small/motion_encoder")


@pytest.fixture(scope="module")
def small() -> MotionEncoder:
    return make_small()


@pytest.fixture(scope="module")
def full(case: Case) -> MotionEncoder:
    return filled(lambda: MotionEncoder(MotionEncoderParams()), f"{case.salt}motion_encoder")


@pytest.fixture
def crops() -> Tensor:
    return 2 * torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(1)) - 1


def check_tokens(case: Case, encoder: MotionEncoder, frames: list[int]) -> None:
    """Tokens of the reference and of those driving frames, cropped with the case's own boxes."""
    boxes = case.tensor("boxes")
    # The reference's box stands behind those of the first chunk, its tokens in front of all.
    driving = crop_faces(case.driving()[frames], boxes[[*range(4), *range(5, len(boxes))]][frames])
    reference = crop_faces(case.reference(case.height, case.width) / 127.5 - 1, boxes[4:5])
    inputs = torch.cat([reference.crops, driving.crops])
    tokens = torch.cat([encoder(part) for part in inputs.split(4)])
    expected = case.tensor("motion")[0, [0, *(1 + frame for frame in frames)]]
    assert relative_errors(tokens, expected).max() < TOLERANCE


def test_its_entries_are_the_released_ones(full: MotionEncoder) -> None:
    released = released_entries()["motion_encoder"].items()
    assert entries(full) == {
        name: shape for name, shape in released if not name.endswith("num_batches_tracked")
    }


@pytest.mark.slow
def test_it_computes_the_released_networks_numbers(case: Case, full: MotionEncoder) -> None:
    check_tokens(case, full, [0, 17, 51])


@pytest.mark.slow
def test_it_computes_them_for_frames_of_the_whole_stream(case: Case, full: MotionEncoder) -> None:
    check_tokens(case, full, list(range(0, 4 * case.facts["chunks"], 4)))


def test_constants_are_real_where_weights_are_not() -> None:
    with torch.device("meta"):
        encoder = MotionEncoder(MotionEncoderParams())
    assert on_meta(encoder, constants=["pe", *POSITIONS])
    assert encoder.get_buffer("model.bn1.running_mean").is_meta
    for name in POSITIONS:
        assert encoder.get_buffer(name).shape == (1, 784, 1024)
    for position in (0, 1, 31):
        angles = [position * 10000 ** (-index / 8) for index in range(8)]
        code = torch.tensor([*map(sin, angles), *map(cos, angles)])
        assert_near(encoder.pe[0, position], code)


def test_the_position_code_is_its_formula() -> None:
    code = sincos_position_encoding_2d(3, 8)
    for row in range(3):
        for column in range(3):
            halves = []
            for place in (column, row):
                angles = [place * 10000 ** (-index / 2) for index in range(2)]
                halves += [*map(sin, angles), *map(cos, angles)]
            assert_near(code[0, 3 * row + column], torch.tensor(halves))


def test_patches_go_back_to_where_they_came_from() -> None:
    attention = PatchAttention(3, width=12, heads=1, patch=2, side=4, groups=1).requires_grad_(False)
    # A patch embedding that lists the pixels row by row, each with its channels, and its inverse.
    rows = torch.eye(12).view(2, 2, 3, 12).permute(3, 2, 0, 1)
    for name, parameter in attention.named_parameters():
        if not name.startswith("norm."):
            parameter.zero_()
    attention.pos_embed.pos_embed.zero_()
    attention.pos_embed.proj.weight.copy_(rows)
    attention.proj_out.weight.copy_(torch.eye(3))
    x = torch.rand(2, 3, 8, 8)
    assert_near(attention(x), x + attention.norm(x))


def test_crops_do_not_see_each_other(small: MotionEncoder, crops: Tensor) -> None:
    together = small(crops)
    assert together.shape == (3, 8, 6)
    for index in range(len(crops)):
        assert_near(together[index], small(crops[index : index + 1])[0])


def test_training_mode_changes_nothing(crops: Tensor) -> None:
    encoder = make_small()
    before = encoder(crops)
    state = {key: value.clone() for key, value in encoder.state_dict().items()}
    assert torch.equal(encoder.train()(crops), before)
    assert all(torch.equal(value, state[key]) for key, value in encoder.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_comes_near(
    small: MotionEncoder, crops: Tensor, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    # oneDNN of PyTorch 2.13 is wrong by 120 % on CPUs with AMX: bfloat16 patches of 16 channels, which no released
    # network has.
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    tokens = make_small().to(dtype)(crops.to(dtype))
    assert tokens.dtype == dtype
    assert relative_errors(tokens.float(), small(crops)).max() < 0.05


def test_memory_format_does_not_matter(small: MotionEncoder, crops: Tensor) -> None:
    last = make_small().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    tokens = last(crops.contiguous(memory_format=torch.channels_last))
    assert_near(tokens, small(crops))


def test_a_little_network_takes_crops_of_the_released_size() -> None:
    encoder = filled(lambda: MotionEncoder(replace(SMALL, image_size=224)), "little/motion_encoder")
    assert encoder(torch.zeros(1, 3, 224, 224)).isfinite().all()


def test_only_shortcuts_have_another_epsilon() -> None:
    encoder = MotionEncoder(SMALL)
    norms = {name: norm.eps for name, norm in encoder.named_modules() if isinstance(norm, FrozenBatchNorm2d)}
    assert {name for name, eps in norms.items() if eps != 1e-5} == {
        "model.conv2.downsample.0",
        "model.conv4.downsample.0",
    }
    assert norms["model.conv2.downsample.0"] == 1e-4


def test_an_hourglass_takes_odd_sizes() -> None:
    hourglass = filled(lambda: Hourglass(8, 2), "hourglass")
    assert hourglass(torch.rand(1, 8, 7, 5)).shape == (1, 8, 7, 5)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"image_size": 220}, "220 is no multiple of 8"),
        ({"image_size": 48}, "too small for an hourglass of depth 4"),
        ({"outer_width": 120}, "120 channels do not divide"),
        ({"inner_width": 6, "norm_groups": 2}, "6 channels do not divide by 4"),
        ({"attention_width": 1000}, "an attention width of 1000"),
        ({"attention_heads": 3}, "3 heads"),
        ({"landmarks": 0}, "every size must be positive"),
        ({"token_width": 15}, "a token width of 15"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(values: dict[str, int], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        replace(MotionEncoderParams(), **values)


def test_the_default_sizes_are_one_set() -> None:
    assert FaceAlignmentParams().patches == 28


def test_crops_of_another_size_are_refused(small: MotionEncoder) -> None:
    with pytest.raises(ValueError, match="64×64"):
        small(torch.zeros(1, 3, 224, 224))
