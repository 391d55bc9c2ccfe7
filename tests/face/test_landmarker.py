from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from personalive.face.landmarker import Landmarker
from personalive.media.types import Image

PROGRAM = """
import numpy as np
from personalive.face.tracker import FaceDetector, FaceTracker
detector, tracker = FaceDetector(), FaceTracker()
frame = np.zeros((120, 160, 3), np.uint8)
print(detector.detect(frame), tracker.track(frame), tracker.track(frame))
{ending}
"""


def test_landmarks_lie_in_the_images_pixels(portrait: Image) -> None:
    landmarker = Landmarker(video=False)
    (face,) = landmarker.find(portrait)
    (shifted,) = landmarker.find(portrait[:300, 100:400], (100, 0))
    landmarker.close()
    assert face.landmarks.shape == (478, 3)
    assert face.landmarks.dtype == np.float32
    assert face.centre == pytest.approx((225, 125), abs=6)
    assert shifted.centre == pytest.approx(face.centre, abs=4)
    assert face.score("mouthSmileLeft", "mouthSmileRight") > 0.5
    assert face.score("eyeBlinkLeft", "eyeBlinkRight") < 0.3


def test_a_read_only_or_sliced_image_is_fine(portrait: Image) -> None:
    landmarker = Landmarker(video=False)
    assert len(landmarker.find(portrait[:, ::-1])) == 1
    landmarker.close()
    landmarker.close()


@pytest.mark.parametrize("video", [True, False])
def test_nothing_is_printed(portrait: Image, capfd: pytest.CaptureFixture[str], video: bool) -> None:
    landmarker = Landmarker(video=video)
    for _ in range(3):
        landmarker.find(portrait)
    landmarker.close()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("ending", ["", "detector.close(); tracker.close()", "raise SystemExit(0)"])
def test_the_interpreter_ends_cleanly(ending: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM.format(ending=ending)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "[] None None\n", "")
