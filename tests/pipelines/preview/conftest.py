"""The shipped portrait and the faces behind it, made once: building a portrait takes longer than moving it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks.following import SAMPLES, square_portrait
from personalive.face.face import Face
from personalive.face.tracker import FaceDetector
from personalive.media import Image, VideoReader, read_image
from personalive.pipelines.preview.head_layout import HeadLayout
from personalive.pipelines.preview.warp import LayeredPortrait


@pytest.fixture(scope="session")
def detector() -> Iterator[FaceDetector]:
    with FaceDetector() as detector:
        yield detector


@pytest.fixture(scope="session")
def sample(detector: FaceDetector) -> Image:
    """The shipped portrait cropped to head and shoulders, uint8 RGB (512, 512, 3), read-only."""
    image = square_portrait(read_image(SAMPLES / "portrait.jpg"), detector)
    image.setflags(write=False)
    return image


@pytest.fixture(scope="session")
def sample_face(sample: Image, detector: FaceDetector) -> Face:
    face = detector.detect_dominant(sample)
    assert face is not None
    return face


@pytest.fixture(scope="session")
def sample_layout(sample_face: Face) -> HeadLayout:
    return HeadLayout.from_landmarks(sample_face.landmarks)


@pytest.fixture(scope="session")
def sample_portrait(sample: Image, sample_face: Face) -> LayeredPortrait:
    return LayeredPortrait.build(sample, sample_face.landmarks)


@pytest.fixture(scope="session")
def driving() -> list[Image]:
    """Every third frame of the shipped driving clip."""
    with VideoReader(SAMPLES / "driving.mp4") as reader:
        return [frame.image for index, frame in enumerate(reader) if index % 3 == 0]
