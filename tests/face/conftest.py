"""One detector for all tests of this folder: loading it takes longer than using it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from personalive.face.face import Face
from personalive.face.tracker import FaceDetector
from personalive.media.types import Image


@pytest.fixture(scope="session")
def detector() -> Iterator[FaceDetector]:
    with FaceDetector() as detector:
        yield detector


@pytest.fixture(scope="session")
def face(portrait: Image, detector: FaceDetector) -> Face:
    found = detector.detect_dominant(portrait)
    assert found is not None
    return found
