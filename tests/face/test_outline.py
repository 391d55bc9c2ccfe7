from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from personalive.errors import MediaError, OutputExistsError
from personalive.face.outline import draw_faces, write_picture


@pytest.mark.parametrize("size", [(200, 300), (3000, 4000)])
def test_boxes_are_drawn_in_place(size: tuple[int, int]) -> None:
    image = np.zeros((*size, 3), np.uint8)
    height, width = size
    box = (width * 0.25, height * 0.25, width * 0.5, height * 0.5)
    drawn = draw_faces(image, [box])
    assert max(drawn.shape) <= 2048
    rows, columns = np.nonzero((drawn > 200).any(2))
    assert columns.min() == pytest.approx(drawn.shape[1] * 0.25, abs=3)
    assert rows.max() == pytest.approx(drawn.shape[0] * 0.5, abs=3)
    assert not drawn[:, : drawn.shape[1] // 5].any()


def test_a_picture_is_written_once(tmp_path: Path) -> None:
    image = np.zeros((20, 20, 3), np.uint8)
    write_picture(tmp_path / "faces.png", image, overwrite=False)
    with pytest.raises(OutputExistsError):
        write_picture(tmp_path / "faces.png", image, overwrite=False)
    with pytest.raises(MediaError):
        write_picture(tmp_path / "none" / "faces.png", image, overwrite=False)
