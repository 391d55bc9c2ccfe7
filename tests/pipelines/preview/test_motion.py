from __future__ import annotations

import numpy as np

from personalive.pipelines.preview.motion import PortraitMotion


def test_no_motion_is_all_zero() -> None:
    still = PortraitMotion()
    assert np.array_equal(still.rotation, np.eye(3))
    assert still.scale == 1.0
    for part, shape in (
        (still.translation, (3,)),
        (still.shape, (478, 3)),
        (still.closure, (2,)),
        (still.gaze, (2, 2)),
    ):
        assert part.shape == shape
        assert not part.any()


def test_two_motions_share_nothing() -> None:
    one, other = PortraitMotion(), PortraitMotion()
    one.translation[0] = one.shape[5, 1] = one.closure[1] = one.gaze[0, 0] = one.rotation[0, 1] = 9
    assert not other.translation.any()
    assert not other.shape.any()
    assert not other.closure.any()
    assert not other.gaze.any()
    assert np.array_equal(other.rotation, np.eye(3))
