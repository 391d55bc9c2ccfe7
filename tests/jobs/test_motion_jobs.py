from __future__ import annotations

import itertools
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from personalive.errors import InputError, OutputExistsError, PersonaLiveError
from personalive.jobs import AnimateJob, run
from personalive.jobs.motion import AnimateMotionJob, ExtractMotionJob, animate_motion, extract_motion
from personalive.media import Image, open_driving, read_provenance
from personalive.pipelines.base import FrameState
from personalive.pipelines.diffusion.motion.driving_motion import DrivingMotion
from personalive.pipelines.diffusion.session import PersonaLiveSession

SAMPLES = Path(str(files("personalive") / "samples"))
PORTRAIT, CLIP = SAMPLES / "portrait.jpg", SAMPLES / "driving.mp4"
END = 0.24
"""Seconds: six frames, which is no whole number of chunks."""


@pytest.fixture(scope="module")
def parameters(test_weights: Path) -> dict[str, object]:
    return {"weights": test_weights, "width": 64, "height": 64, "face_detection": False}


@pytest.fixture(scope="module")
def motion(parameters: dict[str, object], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("motion") / "clip.safetensors"
    extract_motion(ExtractMotionJob(driving=CLIP, output=path, end=END, parameters=parameters))
    return path


def frames(path: Path) -> Image:
    with open_driving(path) as source:
        return np.stack([frame.image for frame in source])


@pytest.mark.slow
def test_a_motion_gives_what_its_clip_gives(
    motion: Path, parameters: dict[str, object], tmp_path: Path
) -> None:
    by_clip, by_motion = tmp_path / "clip.mp4", tmp_path / "motion.mp4"
    expected = run(
        AnimateJob(
            reference=PORTRAIT, driving=CLIP, output=by_clip, pipeline="personalive", end=END, audio=False,
            seed=7, parameters=parameters,
        )
    )  # fmt: skip
    heard: list[tuple[str, int, int | None]] = []
    job = AnimateMotionJob(reference=PORTRAIT, motion=motion, output=by_motion, seed=7, parameters=parameters)
    report = animate_motion(job, lambda *event: heard.append(event))
    np.testing.assert_array_equal(frames(by_motion), frames(by_clip))
    assert report.frames == expected.frames == len(DrivingMotion.load(motion)) > 4
    assert (report.fps, report.width, report.height) == (expected.fps, 64, 64)
    assert report.states == {FrameState.ANIMATED: report.frames}
    assert ("animating", report.frames, report.frames) in heard
    assert read_provenance(by_motion) == read_provenance(by_clip)
    with open_driving(by_motion) as source:
        assert not source.info.has_audio


@pytest.mark.slow
@pytest.mark.parametrize("call", [1, 2])
def test_ctrl_c_leaves_nothing(
    motion: Path,
    parameters: dict[str, object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    call: int,
) -> None:
    real, calls = PersonaLiveSession.step_motion, itertools.count(1)

    def trap(self: PersonaLiveSession, part: DrivingMotion) -> Any:
        if next(calls) == call:
            raise KeyboardInterrupt
        return real(self, part)

    monkeypatch.setattr(PersonaLiveSession, "step_motion", trap)
    job = AnimateMotionJob(
        reference=PORTRAIT, motion=motion, output=tmp_path / "out.mp4", parameters=parameters
    )
    with pytest.raises(KeyboardInterrupt):
        animate_motion(job)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"output": "out.mp4"}, "ends in .safetensors"),
        ({"output": "nonesuch/out.safetensors"}, "does not exist"),
        ({"size": 100}, "multiple of 64"),
        ({"start": 2.0, "end": 1.0}, "must come after"),
        ({"parameters": {"expression": 1.0}}, "expression is a parameter for animating"),
        ({"parameters": {"nonesuch": 1.0}}, "no parameter 'nonesuch'"),
        ({"driving": "nonesuch.mp4"}, "does not exist"),
    ],
)
def test_what_cannot_be_extracted(
    test_weights: Path, tmp_path: Path, changed: dict[str, Any], words: str
) -> None:
    given: dict[str, Any] = {"driving": CLIP, "output": "out.safetensors", "parameters": {}} | changed
    given["output"] = tmp_path / given["output"]
    given["driving"] = Path(given["driving"])
    given["parameters"] |= {"weights": test_weights}
    with pytest.raises(PersonaLiveError, match=words):
        extract_motion(ExtractMotionJob(**given))
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_not_overwritten(test_weights: Path, motion: Path, tmp_path: Path) -> None:
    parameters = {"weights": test_weights}
    with pytest.raises(OutputExistsError):
        extract_motion(ExtractMotionJob(driving=CLIP, output=motion, parameters=parameters))
    (tmp_path / "out.mp4").touch()
    with pytest.raises(OutputExistsError):
        animate_motion(
            AnimateMotionJob(
                reference=PORTRAIT, motion=motion, output=tmp_path / "out.mp4", parameters=parameters
            )
        )


def test_what_cannot_be_driven(test_weights: Path, motion: Path, tmp_path: Path) -> None:
    def refused(words: str, **changed: Any) -> None:
        given: dict[str, Any] = {"reference": PORTRAIT, "motion": motion, "output": tmp_path / "out.mp4"}
        with pytest.raises(InputError, match=words):
            animate_motion(AnimateMotionJob(**(given | changed), parameters={"weights": test_weights}))

    refused("holds no motion", motion=CLIP)
    refused("does not exist", motion=tmp_path / "nonesuch.safetensors")
    refused("is one picture", output=tmp_path / "out.png")
    refused("would overwrite", output=motion)
    assert list(tmp_path.iterdir()) == []
