"""The preview against its promises: the face found again in the output, compared with the driver's."""

from __future__ import annotations

import pytest

from benchmarks.following import FOOTAGE, Following, _print, measure, square_portrait
from personalive.face.tracker import FaceDetector
from personalive.media import Image, VideoReader


@pytest.fixture(scope="module")
def relative(sample: Image, driving: list[Image]) -> Following:
    return measured("sample, relative", sample, driving, 25 / 3)


def measured(
    name: str, picture: Image, frames: list[Image], fps: float, motion: str = "relative"
) -> Following:
    result = measure(name, picture, frames, fps, motion)
    _print(result)
    assert result.frames > 0.9 * len(frames), "faces are found in nearly all driving frames and outputs"
    return result


def follows(result: Following, **least: float) -> None:
    for name, bound in least.items():
        channel = result.channels[name]
        assert channel.counts, f"{name} hardly moves in this clip: {channel.reach:.2g}"
        assert channel.correlation >= bound, name


def footage(name: str) -> tuple[list[Image], float]:
    path = FOOTAGE / f"{name}.mp4"
    if not path.exists():
        pytest.skip(f"{path.name} is not here; `make footage` fetches it")
    with VideoReader(path) as reader:
        return [frame.image for frame in reader], reader.info.fps


def test_the_sample_follows_its_driver(relative: Following) -> None:
    follows(relative, jawOpen=0.9, blink=0.9, yaw=0.9, pitch=0.9)


def test_features_are_where_they_were_meant(relative: Following) -> None:
    assert relative.landmark_error <= 2
    assert relative.feature_error <= 2


def test_the_background_does_not_move(relative: Following) -> None:
    assert relative.background_share > 0.1
    assert relative.background_change <= 1


@pytest.mark.slow
def test_absolute_motion_carries_the_smile(sample: Image, driving: list[Image]) -> None:
    result = measured("sample, absolute", sample, driving, 25 / 3, "absolute")
    follows(result, smile=0.85, jawOpen=0.85, yaw=0.9)
    assert result.landmark_error <= 2.5
    assert result.background_change <= 1


@pytest.mark.slow
@pytest.mark.footage
def test_a_man_moves_the_picture_of_himself(detector: FaceDetector) -> None:
    frames, fps = footage("single_face")
    result = measured("man <- himself", square_portrait(frames[0], detector), frames, fps)
    follows(result, smile=0.9, blink=0.9)
    assert result.landmark_error <= 2


@pytest.mark.slow
@pytest.mark.footage
def test_a_stranger_moves_the_sample(sample: Image) -> None:
    frames, fps = footage("WolfgangLanger_Pexels")
    result = measured("sample <- stranger, relative", sample, frames, fps)
    follows(result, blink=0.9, yaw=0.9, pitch=0.9)
    assert result.blink_kept is not None
    assert result.blink_kept >= 0.5
    assert result.background_change <= 1


@pytest.mark.slow
@pytest.mark.footage
def test_a_strangers_smile_arrives_in_absolute_motion(sample: Image) -> None:
    frames, fps = footage("WolfgangLanger_Pexels")
    result = measured("sample <- stranger, absolute", sample, frames, fps, "absolute")
    follows(result, smile=0.9)
    assert result.background_change <= 1
