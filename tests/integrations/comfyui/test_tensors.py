from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from personalive.errors import InputError, MediaError
from personalive.media import Image

PICTURES = arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3)))


@pytest.mark.usefixtures("comfy")
@given(PICTURES)
def test_a_frame_survives_both_ways(frame: Image) -> None:
    from comfyui.tensors import FrameCollector, to_frame

    found = FrameCollector(1, *frame.shape[:2])
    found.add(frame)
    assert np.array_equal(to_frame(found.images[0]), frame)
    assert np.array_equal(to_frame(found.images[0].half().double()), frame)


@pytest.mark.usefixtures("comfy")
def test_levels_out_of_range_and_grey_pictures() -> None:
    from comfyui.tensors import to_frame

    assert to_frame(torch.tensor([[[-1.0, 0.5, 2.0]]])).tolist() == [[[0, 128, 255]]]
    assert to_frame(torch.tensor([[[1.0]]])).tolist() == [[[255, 255, 255]]]


@pytest.mark.usefixtures("comfy")
def test_what_is_transparent_becomes_white() -> None:
    from comfyui.tensors import to_portrait

    black = torch.zeros(1, 20, 20, 3)
    mask = torch.zeros(1, 20, 20)
    mask[:, :10] = 1.0
    expected = np.zeros((20, 20, 3), np.uint8)
    expected[:10] = 255
    assert np.array_equal(to_portrait(black, mask), expected)
    assert np.array_equal(to_portrait(torch.cat([black, 1 - mask[..., None]], -1), None), expected)
    # LoadImage's mask of a picture without transparency.
    assert not to_portrait(black, torch.zeros(1, 64, 64)).any()
    with pytest.raises(InputError, match="64×64 pixels and the picture 20×20"):
        to_portrait(black, torch.ones(1, 64, 64))


@pytest.mark.usefixtures("comfy")
def test_pictures_that_cannot_be_used() -> None:
    from comfyui.tensors import check_images

    with pytest.raises(InputError, match="at least one"):
        check_images(torch.zeros(0, 64, 64, 3), "The clip")
    with pytest.raises(MediaError, match="The clip has 8×8 pixels"):
        check_images(torch.zeros(1, 8, 8, 3), "The clip")


@pytest.mark.usefixtures("comfy")
def test_frames_have_the_clips_times() -> None:
    from comfyui.tensors import iter_video_frames

    frames = list(iter_video_frames(torch.zeros(3, 4, 4, 3), 50.0))
    assert [frame.time for frame in frames] == [0.0, 0.02, 0.04]
    assert {frame.duration for frame in frames} == {0.02}
