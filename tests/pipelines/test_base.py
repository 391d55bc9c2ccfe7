from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from personalive.errors import SessionClosedError
from personalive.pipelines import registry
from personalive.pipelines.base import FrameChunk, LoadParameters


def chunk(count: int, shade: int = 50) -> FrameChunk:
    return FrameChunk(np.full((count, 24, 32, 3), shade, np.uint8), np.arange(count) / 25)


def test_a_chunk_knows_its_length_and_checks_its_shape() -> None:
    assert len(chunk(4)) == 4
    with pytest.raises(ValueError, match="uint8"):
        FrameChunk(np.zeros((1, 24, 32, 3), np.float32), np.zeros(1))
    with pytest.raises(ValueError, match="uint8"):
        FrameChunk(np.zeros((24, 32, 3), np.uint8), np.zeros(24))
    with pytest.raises(ValueError, match="as many times"):
        FrameChunk(np.zeros((2, 24, 32, 3), np.uint8), np.zeros(3))


@pytest.mark.parametrize(
    "wrong", [{"height": 500}, {"width": 128}, {"width": 1088}, {"seed": -1}, {"hight": 512}]
)
def test_load_parameters_are_bounded(wrong: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        LoadParameters.model_validate(wrong)


def test_parameters_never_change_in_place() -> None:
    parameters = LoadParameters()
    assert (parameters.width, parameters.height, parameters.seed) == (512, 512, 42)
    with pytest.raises(ValidationError):
        parameters.width = 256  # type: ignore[misc]


@pytest.mark.usefixtures("plugins")
def test_leaving_the_block_closes_and_sessions_step_together_as_alone() -> None:
    with registry.get_pipeline("echo").load(LoadParameters(width=256, height=256)) as pipeline:
        reference = pipeline.fuse(np.full((256, 256, 3), 9, np.uint8))
        with pipeline.open_session(reference) as one, pipeline.open_session(reference) as other:
            first, second = pipeline.step_many([one, other], [chunk(4, 60), chunk(4, 90)])
            with pipeline.open_session(reference) as alone:
                assert np.array_equal(alone.step(chunk(4, 90)).images, second.images)
            assert len(first) == len(second) == 3
            with pytest.raises(ValueError, match="shorter"):
                pipeline.step_many([one, other], [chunk(4)])
        with pytest.raises(SessionClosedError):
            one.step(chunk(4))
