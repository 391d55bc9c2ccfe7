"""Whose face, as a person asks for it: a portrait of two faces, and a clip of two people."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import av
import cv2
import numpy as np
import pytest

from personalive.media import open_driving, read_image
from personalive.media.types import Image

if TYPE_CHECKING:
    from tests.cli.conftest import Call

FRAMES = 10


@pytest.fixture
def two(tmp_path: Path, portrait: Image) -> Path:
    path = tmp_path / "two.png"
    cv2.imwrite(str(path), np.hstack([portrait, portrait[:, ::-1]])[..., ::-1])
    return path


@pytest.fixture
def duo(tmp_path: Path, portrait: Image) -> Path:
    """A clip whose left person is still, while the right one moves."""
    path = tmp_path / "duo.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 1024, 512, "yuv420p"
        for k in range(FRAMES):
            moved = cv2.warpAffine(
                portrait,
                cv2.getRotationMatrix2D((225.0, 200.0), 2.0 * k, 1.0),
                (512, 512),
                borderMode=cv2.BORDER_REFLECT,
            )
            frame = np.hstack([portrait, moved]).astype(np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        out.mux(stream.encode())
    return path


def motion_in(path: Path) -> float:
    """How much the last frame differs from the first."""
    with open_driving(path) as video:
        images = [frame.image.astype(np.int16) for frame in video]
    return float(np.abs(images[-1] - images[0]).mean())


def test_the_error_lists_the_faces_and_a_number_chooses(
    personalive: Call, two: Path, clip: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.mp4"
    asked = ["animate", str(two), str(clip), "-o", str(out), "--pipeline", "preview", "--max-frames", "1"]
    refused = personalive(*asked)
    assert refused.code == 2
    assert "1: left" in refused.err
    assert "--face 1" in refused.err
    assert personalive(*asked, "--face", "middle").code == 2
    assert personalive(*asked, "--face", "2").code == 0
    assert out.exists()


def test_the_faces_are_shown(personalive: Call, two: Path, clip: Path, tmp_path: Path) -> None:
    shown = tmp_path / "faces.png"
    told = personalive("animate", str(two), str(clip), "--show-faces", str(shown))
    assert told.code == 0
    assert "2: right" in told.out
    assert (np.abs(read_image(shown).astype(int) - read_image(two)).max(2) > 60).any()
    assert personalive("animate", str(two), str(clip), "--show-faces", str(shown)).code == 2


def preview(portrait: Path, clip: Path, out: Path) -> list[str]:
    """The command that animates by the preview, at 256×256."""
    return ["animate", str(portrait), str(clip), "-o", str(out), "--pipeline", "preview", "--size", "256"]


def test_the_chosen_person_is_followed(
    personalive: Call, portrait_file: Path, duo: Path, tmp_path: Path
) -> None:
    moved = {}
    for choice in ("left", "right"):
        out = tmp_path / f"{choice}.mp4"
        assert personalive(*preview(portrait_file, duo, out), "--driver-face", choice).code == 0
        moved[choice] = motion_in(out)
    assert moved["right"] > 3 * moved["left"]
    refused = personalive(
        "animate", str(portrait_file), str(duo), "-o", str(tmp_path / "x.mp4"), "--driver-face", "3"
    )
    assert refused.code == 2
    assert "no face 3, but these: 1: left" in refused.err


def test_presets_by_name(personalive: Call, portrait_file: Path, duo: Path, tmp_path: Path) -> None:
    moved = {}
    for preset in ("head-only", "expression-only"):
        out = tmp_path / f"{preset}.mp4"
        assert (
            personalive(*preview(portrait_file, duo, out), "--driver-face", "2", "--preset", preset).code == 0
        )
        moved[preset] = motion_in(out)
    assert moved["head-only"] > 2 * moved["expression-only"]
    refused = personalive(
        "animate", str(portrait_file), str(duo), "-o", str(tmp_path / "x.mp4"), "--preset", "wild"
    )
    assert "expression-only, head-only, calm, exaggerated" in refused.err


def test_live_and_motion_files_show_the_faces_as_well(
    personalive: Call, two: Path, clip: Path, tmp_path: Path
) -> None:
    for number, command in enumerate((["live", str(two)], ["motion", "drive", str(two), "any.motion"])):
        shown = tmp_path / f"faces{number}.png"
        told = personalive(*command, "--show-faces", str(shown))
        assert told.code == 0
        assert "1" in told.out
        assert read_image(shown).shape == read_image(two).shape
    refused = personalive("live", str(two), str(two), "--show-faces", str(tmp_path / "more.png"))
    assert refused.code == 2
    assert "one portrait" in refused.err
