from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from personalive.errors import FaceChoiceError, NoFaceError
from personalive.live.live_job import LiveJob
from personalive.live.portraits import read_portraits
from personalive.media import Image
from personalive.pipelines.base import LoadParameters
from tests.server.parts import two_faces


def test_all_portraits_are_cut_to_the_size_that_the_first_decides(
    portrait: Image, portrait_file: Path, tmp_path: Path
) -> None:
    wide = tmp_path / "wide.png"
    cv2.imwrite(str(wide), np.hstack([portrait[:, :, ::-1], np.full_like(portrait, 90)]))
    job = LiveJob(portraits=(wide, portrait_file), size=256, crop=False)
    portraits, size = read_portraits(job, {}, LoadParameters())
    assert size == (512, 256)
    assert [each.crop.image.shape for each in portraits] == [(256, 512, 3)] * 2
    assert portraits[1].sha256 == hashlib.sha256(portrait_file.read_bytes()).hexdigest()
    cropped, size = read_portraits(LiveJob(portraits=(wide, portrait_file), size=256), {}, LoadParameters())
    assert size == (256, 256)
    # Both pictures show the same head at the same place.
    boxes = [each.crop.box for each in cropped]
    assert abs(boxes[0].left - boxes[1].left) < 5
    assert abs(boxes[0].width - boxes[1].width) < 5
    assert [each.crop.image.shape for each in cropped] == [(256, 256, 3)] * 2


def test_a_size_that_was_set_counts(portrait_file: Path) -> None:
    given = {"width": 320, "height": 384}
    _, size = read_portraits(
        LiveJob(portraits=(portrait_file,)), given, LoadParameters(width=320, height=384)
    )
    assert size == (320, 384)


def test_a_picture_without_a_face_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "grey.png"
    cv2.imwrite(str(path), np.full((200, 200, 3), 128, np.uint8))
    with pytest.raises(NoFaceError, match=r"grey\.png"):
        read_portraits(LiveJob(portraits=(path,)), {}, LoadParameters())


def test_one_of_several_faces_is_chosen(tmp_path: Path) -> None:
    path = tmp_path / "two.png"
    cv2.imwrite(str(path), two_faces()[:, :, ::-1])
    job = LiveJob(portraits=(path,), size=256)
    with pytest.raises(FaceChoiceError):
        read_portraits(job, {}, LoadParameters())
    (left,), _ = read_portraits(replace(job, face="left"), {}, LoadParameters())
    (right,), _ = read_portraits(replace(job, face="2"), {}, LoadParameters())
    assert left.crop.face_box is not None
    assert left.crop.box != right.crop.box
