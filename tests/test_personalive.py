from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np
import pytest

import personalive
from personalive.pipelines.base import FrameChunk, FrameState

pytestmark = pytest.mark.usefixtures("plugins")


def test_version_and_names() -> None:
    assert personalive.__version__ == version("personalive")
    for name in personalive.__all__:
        assert getattr(personalive, name) is not None
    with pytest.raises(AttributeError, match="nonesuch"):
        _ = personalive.nonesuch  # type: ignore[attr-defined]


def test_importing_is_cheap() -> None:
    check = "import sys, personalive; assert not {'numpy', 'av', 'cv2', 'pydantic'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True, timeout=30)


def test_animate(portrait_file: Path, clip: Path, tmp_path: Path) -> None:
    heard = []
    report = personalive.animate(
        str(portrait_file),
        clip,
        tmp_path / "out.mp4",
        pipeline="echo",
        size=256,
        max_frames=5,
        progress=lambda stage, _done, _total: heard.append(stage),
    )
    assert report.frames == 5
    assert report.states == {FrameState.ANIMATED: 5}
    assert (tmp_path / "out.mp4").exists()
    assert "animating" in heard


def test_animate_refuses_what_it_does_not_know(portrait_file: Path, clip: Path, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="sise"):
        personalive.animate(portrait_file, clip, tmp_path / "out.mp4", sise=256)
    grey = tmp_path / "grey.png"
    cv2.imwrite(str(grey), np.full((200, 200, 3), 128, np.uint8))
    with pytest.raises(personalive.NoFaceError):
        personalive.animate(grey, clip, tmp_path / "out.mp4")


def test_load_pipeline() -> None:
    with personalive.load_pipeline("echo", width=256, height=320) as pipeline:
        assert (pipeline.parameters.width, pipeline.parameters.height) == (256, 320)
        reference = pipeline.fuse(np.full((320, 256, 3), 9, np.uint8))
        with pipeline.open_session(reference) as session:
            out = session.step(FrameChunk(np.full((4, 20, 20, 3), 70, np.uint8), np.arange(4) / 25))
            assert out.images.shape == (3, 320, 256, 3)
    with pytest.raises(personalive.InputError, match="width = 300"):
        personalive.load_pipeline("echo", width=300)
    with pytest.raises(personalive.UnknownPipelineError):
        personalive.load_pipeline("nonesuch")


def test_auto_is_the_preview() -> None:
    with personalive.load_pipeline() as pipeline:
        assert pipeline.info.id == "preview"
