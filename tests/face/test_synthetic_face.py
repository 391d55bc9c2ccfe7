from __future__ import annotations

import numpy as np
import pytest

from personalive.face.synthetic_face import render_synthetic_face
from personalive.face.tracker import FaceDetector


@pytest.mark.parametrize("side", [160, 256, 400])
def test_the_drawn_face_is_found_where_it_was_drawn(detector: FaceDetector, side: int) -> None:
    image, places = render_synthetic_face(side)
    assert image.shape == (side, side, 3)
    face = detector.detect_dominant(image)
    assert face is not None
    away = np.linalg.norm(face.landmarks[:468, :2] - places, axis=1).mean()
    assert away < 0.03 * np.ptp(places[:, 1])
