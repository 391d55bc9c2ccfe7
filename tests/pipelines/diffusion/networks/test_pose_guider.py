from __future__ import annotations

import pytest
import torch

from personalive.pipelines.diffusion.networks.pose_guider import PoseGuider, PoseGuiderParams
from personalive.pipelines.diffusion.preprocessing.pose_image import draw_pose_image
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


@pytest.fixture(scope="module")
def small() -> PoseGuider:
    params = PoseGuiderParams(channels=(4, 8, 8, 16), out_channels=24)
    return filled(lambda: PoseGuider(params), "small/pose_guider")


def test_its_entries_are_the_released_ones() -> None:
    assert entries(PoseGuider(PoseGuiderParams())) == released_entries()["pose_guider"]


def test_it_computes_the_released_networks_numbers(case: Case) -> None:
    guider = filled(lambda: PoseGuider(PoseGuiderParams(out_channels=32)), f"{case.salt}pose_guider")
    canvas = draw_pose_image(case.tensor("kps"), case.height, case.width)
    pose = guider(canvas.transpose(0, 1)[None])
    ours, theirs = pose[0, :, :, ::8, ::8].transpose(0, 1), case.tensor("pose")[0].transpose(0, 1)
    assert relative_errors(ours, theirs).max() < TOLERANCE


def test_at_its_released_size_it_feeds_the_denoising_unet() -> None:
    guider = PoseGuider(PoseGuiderParams()).requires_grad_(False)
    assert guider(torch.zeros(1, 3, 2, 64, 128)).shape == (1, 320, 2, 8, 16)


def test_sessions_and_frames_do_not_see_each_other(small: PoseGuider) -> None:
    canvas = torch.rand(2, 3, 3, 32, 16)
    together = small(canvas)
    for session in range(2):
        for frame in range(3):
            alone = small(canvas[session : session + 1, :, frame : frame + 1])
            assert_near(together[session, :, frame], alone[0, :, 0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_comes_near(small: PoseGuider, dtype: torch.dtype) -> None:
    canvas = torch.rand(1, 3, 2, 32, 32)
    half = filled(lambda: PoseGuider(small.params), "small/pose_guider").to(dtype)
    out = half(canvas.to(dtype))
    assert out.dtype == dtype
    assert relative_errors(out.float(), small(canvas)) < 0.02


def test_memory_format_is_the_callers_choice(small: PoseGuider) -> None:
    canvas = torch.rand(2, 3, 32, 32)
    last = small.forward_frames(canvas.contiguous(memory_format=torch.channels_last))
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert_near(last, small.forward_frames(canvas))


def test_it_is_built_on_the_meta_device() -> None:
    with torch.device("meta"):
        guider = PoseGuider(PoseGuiderParams())
    assert on_meta(guider, constants=())


def test_sizes_that_do_not_fit_are_refused(small: PoseGuider) -> None:
    with pytest.raises(ValueError, match="36×32 pixels does not divide by 8"):
        small(torch.zeros(1, 3, 1, 32, 36))
    for params in ({"channels": ()}, {"channels": (16, 0)}, {"out_channels": 0}):
        with pytest.raises(ValueError, match="at least one width"):
            PoseGuiderParams(**params)
