from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from personalive.errors import NoFaceError
from personalive.jobs.reference_image import crop_to_face, read_reference
from personalive.media import open_driving
from personalive.pipelines.base import FrameChunk
from personalive.pipelines.preview.parameters import PreviewLoadParameters, PreviewRunParameters
from personalive.pipelines.preview.pipeline import PreviewPipeline

SAMPLES = Path(__file__).parents[3] / "src/personalive/samples"
PORTRAIT = SAMPLES / "portrait.jpg"
SIDE, CHUNK = 256, 4
TIME_BASE = Fraction(1, 90_000)


@dataclass(frozen=True)
class Timestamp:
    pts: int | None
    time_base: Fraction | None = TIME_BASE


@pytest.fixture
def pipeline(pipelines: dict[str, Any]) -> Iterator[Any]:
    """The preview as Scope loads it: by the configuration's defaults and what the user has chosen."""
    config = pipelines["personalive-preview"].get_config_class()
    defaults = {
        name: field.default for name, field in config.model_fields.items() if field.default is not None
    }
    loaded = pipelines["personalive-preview"](**{**defaults, "width": SIDE, "height": SIDE})
    yield loaded
    loaded.shutdown()


@pytest.fixture(scope="module")
def frames() -> list[torch.Tensor]:
    """Twelve driving frames as Scope passes them."""
    with open_driving(SAMPLES / "driving.mp4") as source:
        return [
            torch.from_numpy(frame.image.copy())[None] for frame, _ in zip(source, range(12), strict=False)
        ]


def chunks(frames: list[torch.Tensor]) -> Iterator[dict[str, Any]]:
    """The calls' video and timestamps, 25 frames a second."""
    for begin in range(0, len(frames), CHUNK):
        stamps = [Timestamp(3600 * (begin + k)) for k in range(CHUNK)]
        yield {"video": frames[begin : begin + CHUNK], "video_timestamps": stamps}


def test_the_frames_are_the_pipelines_own(pipeline: Any, frames: list[torch.Tensor]) -> None:
    assert pipeline.prepare(video=True).input_size == CHUNK
    results = [
        pipeline(**chunk, reference_image=str(PORTRAIT), expression=1.5, init_cache=k == 0, unknown=1)
        for k, chunk in enumerate(chunks(frames))
    ]
    with PreviewPipeline.load(PreviewLoadParameters(width=SIDE, height=SIDE)) as own:
        reference = own.fuse(crop_to_face(read_reference(PORTRAIT), (SIDE, SIDE)).image)
        with own.open_session(reference, PreviewRunParameters(expression=1.5)) as session:
            for k, result in enumerate(results):
                images = np.concatenate([frame.numpy() for frame in frames[4 * k : 4 * k + 4]])
                expected = session.step(FrameChunk(images, np.arange(4 * k, 4 * k + 4) / 25)).images
                video = result["video"]
                assert video.dtype == torch.float32
                assert 0 <= video.min() <= video.max() <= 1
                assert np.array_equal((video * 255).round().to(torch.uint8).numpy(), expected)
                assert [stamp.pts for stamp in result["video_timestamps"]] == [
                    3600 * (4 * k + j) for j in range(4)
                ]


def test_a_reset_begins_again(pipeline: Any, frames: list[torch.Tensor]) -> None:
    first = next(chunks(frames))
    given = {"reference_image": str(PORTRAIT)}
    begun = pipeline(**first, **given, init_cache=True)["video"]
    assert not torch.equal(pipeline(**first, **given)["video"], begun)
    assert torch.equal(pipeline(**first, **given, init_cache=True)["video"], begun)


def test_trouble_with_the_portrait_is_said_once(
    pipeline: Any, frames: list[torch.Tensor], caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    chunk = next(chunks(frames))
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            assert pipeline(**chunk)["video"] is None
        for _ in range(3):
            assert pipeline(**chunk, reference_image=str(tmp_path / "none.png"))["video"] is None
        assert pipeline(**chunk, reference_image=str(PORTRAIT))["video"] is not None
        # The portrait before stays.
        for _ in range(2):
            assert pipeline(**chunk, reference_image=str(tmp_path / "none.png"))["video"] is not None
        for _ in range(2):
            assert pipeline(**chunk, reference_image=str(PORTRAIT), expression=99)["video"] is not None
    told = [record.getMessage() for record in caplog.records]
    assert [sentence.partition(" ")[0] for sentence in told[:1]] == ["Choose"]
    assert sum("none.png does not exist" in sentence for sentence in told) == 1
    assert sum("expression = 99" in sentence for sentence in told) == 1
    assert len(told) == 3


def test_a_portrait_is_exchanged_while_it_runs(
    pipeline: Any, frames: list[torch.Tensor], tmp_path: Path
) -> None:
    chunk = next(chunks(frames))
    mirrored = tmp_path / "mirrored.png"
    Pillow.open(PORTRAIT).transpose(Pillow.Transpose.FLIP_LEFT_RIGHT).save(mirrored)
    one = pipeline(**chunk, reference_image=str(PORTRAIT))["video"]
    other = pipeline(**chunk, reference_image=str(mirrored))["video"]
    assert (one - other).abs().mean() > 0.05


def test_a_portrait_may_be_chosen_before_loading(pipelines: dict[str, Any], tmp_path: Path) -> None:
    picture = tmp_path / "empty.png"
    Pillow.new("RGB", (300, 300)).save(picture)
    with pytest.raises(NoFaceError, match=r"No face was found in empty\.png"):
        pipelines["personalive-preview"](width=SIDE, height=SIDE, reference_image=str(picture))
