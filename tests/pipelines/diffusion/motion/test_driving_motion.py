from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from personalive.errors import InputError
from personalive.media.types import Image
from personalive.pipelines.diffusion.components import Components
from personalive.pipelines.diffusion.motion.driving_motion import DrivingMotion
from personalive.pipelines.diffusion.networks.motion_extractor import HeadMotion
from personalive.pipelines.diffusion.parameters import PersonaLiveLoadParameters
from personalive.pipelines.diffusion.pipeline import PersonaLivePipeline
from personalive.pipelines.diffusion.sampling.reference import FusedReference
from tests.pipelines.diffusion.streams import CHUNK, FPS, GREY, chunk, content, drive, part, video


def assert_equal(one: DrivingMotion, other: DrivingMotion) -> None:
    for first, second in zip(
        (*one.head, one.tokens, one.valid), (*other.head, other.tokens, other.valid), strict=True
    ):
        assert first.dtype == second.dtype
        assert torch.equal(first, second)
    assert np.array_equal(one.times, other.times)
    assert (one.fps, one.weights) == (other.fps, other.weights)


def test_it_survives_its_file_to_the_last_bit(motion: DrivingMotion, tmp_path: Path) -> None:
    motion.save(tmp_path / "a.safetensors")
    assert_equal(DrivingMotion.load(tmp_path / "a.safetensors"), motion)
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_a_session_moved_by_it_shows_the_same_bytes_as_by_the_frames(
    pipeline: PersonaLivePipeline, reference: FusedReference, motion: DrivingMotion
) -> None:
    with pipeline.open_session(reference) as looking, pipeline.open_session(reference) as moved:
        seen = [looking.step(chunk(1, index)) for index in range(3)]
        assert content(drive(moved, motion)) == content(seen)


def test_one_of_other_weights_is_refused(
    pipeline: PersonaLivePipeline, reference: FusedReference, motion: DrivingMotion
) -> None:
    other = dataclasses.replace(motion, weights="others")
    with pipeline.open_session(reference) as session:
        with pytest.raises(InputError, match="other weights: extract it again"):
            session.step_motion(part(other, 0))
        with pytest.raises(InputError, match="chunks of 4 frames, not 3"):
            session.step_motion(motion.select(slice(0, 3)))


def test_a_clip_need_not_fill_its_last_chunk(pipeline: PersonaLivePipeline, motion: DrivingMotion) -> None:
    short = pipeline.extract_motion(video(1, CHUNK + 1), FPS)
    assert len(short) == len(short.times) == CHUNK + 1
    assert torch.allclose(short.tokens, motion.tokens[: CHUNK + 1], atol=1e-4)
    padded = short.pad(2 * CHUNK)
    assert len(padded) == 2 * CHUNK
    assert torch.equal(padded.tokens[CHUNK:], short.tokens[-1:].expand(CHUNK, -1, -1))
    assert list(padded.times[CHUNK:]) == [short.times[-1]] * CHUNK


def test_clips_without_frames_or_without_a_face_are_refused(
    pipeline: PersonaLivePipeline, models: Components, set_to: PersonaLiveLoadParameters
) -> None:
    with pytest.raises(InputError, match="No face was found in the driving clip"):
        pipeline.extract_motion([], FPS)
    looking = PersonaLivePipeline(models, set_to.model_copy(update={"face_detection": True}))
    grey = [dataclasses.replace(frame, image=grey_image()) for frame in video(1, 3)]
    with looking, pytest.raises(InputError, match="No face was found in the driving clip"):
        looking.extract_motion(grey, FPS)


def grey_image() -> Image:
    return GREY.copy()


def test_a_file_that_is_not_there_and_a_folder_that_is_not_there_are_told(
    motion: DrivingMotion, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="does not exist"):
        DrivingMotion.load(tmp_path / "none.safetensors")
    with pytest.raises(InputError, match="cannot be written"):
        motion.save(tmp_path / "no" / "such.safetensors")


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_other_bytes_are_refused_or_read_but_never_break_it(
    motion: DrivingMotion, tmp_path: Path, data: st.DataObject
) -> None:
    path = tmp_path / "file.safetensors"
    motion.select(slice(0, 2)).save(path)
    whole = path.read_bytes()
    place = data.draw(st.integers(0, 900))
    flipped = whole[:place] + bytes([whole[place] ^ data.draw(st.integers(1, 255))]) + whole[place + 1 :]
    path.write_bytes(data.draw(st.sampled_from([whole[:place], flipped]) | st.binary(max_size=64)))
    try:
        read = DrivingMotion.load(path)
    except InputError:
        return
    assert read.tokens.shape[1:] == (32, 16)
    assert read.head.keypoints.shape == (2, 21, 3)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tokens", torch.zeros(2, 31, 16)),
        ("tokens", torch.zeros(3, 32, 16)),
        ("valid", torch.zeros(2, 1, dtype=torch.bool)),
        ("head.keypoints", torch.zeros(2, 20, 3)),
        ("head.pitch", torch.zeros(2, 1)),
        ("head.translation", torch.zeros(2, 2)),
        ("times", torch.zeros(1, dtype=torch.float64)),
    ],
)
def test_shapes_that_are_not_a_motions_are_refused(
    motion: DrivingMotion, tmp_path: Path, name: str, value: torch.Tensor
) -> None:
    two = motion.select(slice(0, 2))
    tensors = {f"head.{field}": getattr(two.head, field).clone() for field in HeadMotion._fields}
    tensors |= {"tokens": two.tokens.clone(), "valid": two.valid.clone(), "times": torch.zeros(2).double()}
    facts: dict[str, Any] = {"format": 1, "fps": FPS, "weights": "w"}
    path = tmp_path / "file.safetensors"
    save_file(tensors, path, {"motion": json.dumps(facts)})
    assert len(DrivingMotion.load(path)) == 2
    save_file(tensors | {name: value}, path, {"motion": json.dumps(facts)})
    with pytest.raises(InputError, match="holds no motion"):
        DrivingMotion.load(path)
    save_file(tensors, path, {"motion": json.dumps(facts | {"format": 2})})
    with pytest.raises(InputError, match="holds no motion"):
        DrivingMotion.load(path)
