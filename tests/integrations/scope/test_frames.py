from __future__ import annotations

from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch


@pytest.mark.usefixtures("pipelines")
def test_frames_of_any_type() -> None:
    from personalive_scope.frames import to_images, to_video

    levels = torch.arange(48, dtype=torch.uint8).reshape(1, 4, 4, 3)
    rgba = torch.cat([levels, levels[..., :1]], -1)
    for frame in (levels, levels.float(), levels[0], rgba):
        (image,) = to_images([frame])
        assert image.dtype == np.uint8
        assert np.array_equal(image, levels[0].numpy())
    assert torch.equal(to_video(levels.numpy()) * 255, levels.float())


def stamp(ticks: int | None) -> Any:
    return SimpleNamespace(pts=ticks, time_base=Fraction(1, 10))


@pytest.mark.usefixtures("pipelines")
def test_times_never_decrease_and_stamps_come_back() -> None:
    from personalive_scope.frames import Clock

    clock = Clock()
    given = [stamp(10), stamp(20), stamp(15)]
    assert clock.read(given, 3).tolist() == [1.0, 2.0, 2.0]
    assert clock.stamps_for(np.array([1.0]))[0] is given[0]
    assert clock.stamps_for(np.array([2.0]))[0] is given[2]
    # The first was forgotten.
    assert clock.stamps_for(np.array([1.0])) == [None]


@pytest.mark.usefixtures("pipelines")
def test_without_timestamps_the_arrival_counts() -> None:
    from personalive_scope.frames import Clock

    clock = Clock()
    times = [*clock.read([], 2), *clock.read([stamp(None)], 2)]
    assert times == sorted(times)
    assert len(times) == 4
