from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import av
import cv2
import numpy as np
import pytest

from personalive.media import read_provenance
from personalive.media.types import Image

if TYPE_CHECKING:
    from tests.cli.conftest import Call

pytestmark = pytest.mark.usefixtures("plugins")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def bomb() -> bytes:
    """A PNG that claims 60 000 × 60 000 pixels and holds none."""

    def piece(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + piece(b"IHDR", header) + piece(b"IDAT", b"") + piece(b"IEND", b"")


@pytest.fixture
def bad(tmp_path: Path, portrait_file: Path, clip: Path) -> Callable[[str], Path]:
    """Paths to things that cannot be used, by name."""
    folder = tmp_path / "bad"
    (folder / "directory").mkdir(parents=True)
    (folder / "empty.png").write_bytes(b"")
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "truncated.png").write_bytes(portrait_file.read_bytes()[:5000])
    (folder / "truncated.mp4").write_bytes(clip.read_bytes()[:3000])
    (folder / "text.png").write_text("This is no picture.\n")
    (folder / "text.mp4").write_text("#EXTM3U\n/etc/passwd\n")
    (folder / "bomb.png").write_bytes(bomb())
    cv2.imwrite(str(folder / "faceless.png"), np.full((200, 300, 3), 128, np.uint8))
    return lambda name: folder / name


UNUSABLE = ["empty.png", "empty.mp4", "truncated.png", "truncated.mp4", "text.png", "text.mp4", "bomb.png"]


@pytest.mark.parametrize("name", [*UNUSABLE, "missing.png", "directory", "faceless.png"])
def test_a_reference_that_cannot_be_used(
    personalive: Call, bad: Callable[[str], Path], clip: Path, here: Path, name: str
) -> None:
    done = personalive("animate", bad(name), clip, "-o", "out.mp4", "-q")
    assert done.code == 2
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1
    assert name.split(".", maxsplit=1)[0] in done.err
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("name", [*UNUSABLE, "missing.mp4", "directory"])
def test_a_driving_clip_that_cannot_be_used(
    personalive: Call, bad: Callable[[str], Path], portrait_file: Path, here: Path, name: str
) -> None:
    for output in (["-o", "out.mp4"], []):
        done = personalive("animate", portrait_file, bad(name), *output, "-q")
        assert done.code == 2
        assert done.err.startswith("error: ")
        assert done.err.count("\n") == 1
        assert done.out == ""
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-o", "out.xyz"], "type of output is not known"),
        (["-o", "no/such/folder/out.mp4"], "does not exist"),
        (["-o", "out.png"], "is one picture"),
        (["--start", "2", "--end", "1"], "must come after"),
        (["--start", "-1"], "start must be"),
        (["--start", "99"], "s long: there is nothing after 99 s"),
        (["--size", "500"], "multiple of 64"),
        (["--size", "128"], "multiple of 64"),
        (["--fps", "0"], "frame rate"),
        (["--max-frames", "0"], "At least one frame"),
        (["--motion", "sideways"], "motion = 'sideways'"),
        (["--expression", "9"], "expression = 9"),
        (["--set", "smoothing=calm"], "smoothing = 'calm'"),
        (["--set", "smothing=0.5"], "no parameter 'smothing'. It has: motion"),
        (["--pipeline", "personalive"], "Run: personalive download"),
        (["--pipeline", "missing"], "download_models --pipeline missing"),
        (["--seed", "-3"], "seed = -3"),
    ],
)
@pytest.mark.usefixtures("here")
def test_options_that_cannot_be(
    personalive: Call, portrait_file: Path, clip: Path, arguments: list[str], words: str
) -> None:
    done = personalive("animate", portrait_file, clip, "-q", *arguments)
    assert done.code == 2
    assert words in done.err
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1
    assert list(Path.cwd().iterdir()) == []


def test_an_output_that_exists_is_kept(
    personalive: Call, portrait_file: Path, clip: Path, here: Path
) -> None:
    (here / "out.mp4").write_bytes(b"dear")
    arguments = ["animate", portrait_file, clip, "-o", "out.mp4", "--pipeline", "echo", "-q"]
    done = personalive(*arguments)
    assert done.code == 2
    assert "exists already" in done.err
    assert (here / "out.mp4").read_bytes() == b"dear"
    assert personalive(*arguments, "-y").code == 0
    assert (here / "out.mp4").read_bytes() != b"dear"


def test_an_input_is_never_the_output(personalive: Call, portrait_file: Path, here: Path, clip: Path) -> None:
    copy = here / "clip.mp4"
    copy.write_bytes(clip.read_bytes())
    done = personalive("animate", portrait_file, copy, "-o", "../here/clip.mp4", "-y")
    assert done.code == 2
    assert "would overwrite the driving clip" in done.err
    assert copy.read_bytes() == clip.read_bytes()


def test_the_default_name_and_the_summary(
    personalive: Call, portrait_file: Path, clip: Path, here: Path
) -> None:
    done = personalive("animate", portrait_file, clip, "--pipeline", "echo", "--set", "gain=0.5")
    assert done.code == 0
    assert [path.name for path in here.iterdir()] == ["portrait_clip.mp4"]
    assert done.out.startswith(
        "portrait_clip.mp4: 30 frames (30 animated), 512×512, 1.20 s at 25 fps; made in"
    )
    assert done.err.splitlines()[0] == "running echo: asked for"
    assert "animating" in done.err
    still = personalive("animate", portrait_file, portrait_file, "--pipeline", "echo")
    assert still.out.splitlines()[0].startswith("note: portrait.png is a still")
    assert (here / "portrait_portrait.png").exists()


@pytest.mark.parametrize("driver_lies", [False, True])
def test_what_lies_on_its_side_is_turned_and_said(
    personalive: Call, portrait: Image, portrait_file: Path, here: Path, driver_lies: bool
) -> None:
    lying = here / "lying.png"
    cv2.imwrite(str(lying), np.rot90(portrait)[..., ::-1])
    files = (portrait_file, lying) if driver_lies else (lying, portrait_file)
    done = personalive("animate", *files, "-o", "out.png", "--pipeline", "echo")
    assert done.code == 0
    assert "note: lying.png lies on its side: it is rotated by 90° clockwise." in done.out
    flag = "--rotate" if driver_lies else "--rotate-reference"
    done = personalive("animate", *files, "-o", "out.png", "-y", "--pipeline", "echo", flag, "90")
    assert done.code == 0
    assert "lies on its side" not in done.out
    assert personalive("animate", *files, "-o", "out.png", "-y", "--pipeline", "echo", flag, "45").code == 2


def test_a_choice_of_sound_is_said(personalive: Call, portrait_file: Path, clip: Path, here: Path) -> None:
    two = here / "two.mkv"
    with av.open(str(clip)) as source, av.open(str(two), "w") as target:
        given = (source.streams.video[0], source.streams.audio[0])
        made = [target.add_stream_from_template(stream) for stream in (*given, given[1])]
        for packet in source.demux(*given):
            if packet.dts is not None:
                packet.stream = made[packet.stream.index]
                target.mux(packet)
    arguments = ["animate", portrait_file, two, "--pipeline", "echo", "--max-frames", "2", "-y"]
    note = "note: two.mkv has 2 sound tracks: the first (aac) is used."
    assert note in personalive(*arguments, "-o", "out.mp4").out
    assert note not in personalive(*arguments, "-o", "out.mp4", "--no-audio").out


def test_quiet_prints_nothing_when_all_is_well(
    personalive: Call, portrait_file: Path, clip: Path, here: Path
) -> None:
    done = personalive("animate", portrait_file, clip, "--pipeline", "echo", "--quiet", "-o", "out.mp4")
    assert (done.code, done.out, done.err) == (0, "", "")
    assert (here / "out.mp4").exists()


def test_the_preview_animates_a_real_face(
    personalive: Call, portrait_file: Path, clip: Path, here: Path
) -> None:
    done = personalive(
        "animate", portrait_file, clip, "--size", "256", "-o", "out.mp4", "--expression", "1.2"
    )
    assert done.code == 0, done.err
    assert (
        "not the diffusion model: the diffusion pipeline cannot run here: there are no weights in" in done.err
    )
    assert "warning: No face was found in 4 of 30 frames: the last motion was held there." in done.err
    assert "30 frames (26 animated, 4 held), 256×256" in done.out
    mark = read_provenance(here / "out.mp4")
    assert mark is not None
    assert mark["pipeline"] == "preview"


@pytest.mark.slow
def test_the_preview_side_by_side_pasted_back_and_whole(
    personalive: Call, portrait_file: Path, clip: Path, here: Path
) -> None:
    common = ["animate", portrait_file, clip, "--size", "256", "--max-frames", "4", "-q"]
    assert personalive(*common, "--side-by-side", "-o", "side.mp4").code == 0
    assert personalive(*common, "--paste-back", "-o", "back.mp4").code == 0
    assert personalive(*common, "--no-crop", "--motion", "absolute", "-o", "whole.webm").code == 0
    assert {path.name for path in here.iterdir()} == {"side.mp4", "back.mp4", "whole.webm"}


def test_a_clip_without_a_face_shows_the_still(
    personalive: Call, portrait_file: Path, tmp_path: Path, here: Path, portrait: Image
) -> None:
    folder = tmp_path / "faceless"
    folder.mkdir()
    for k in range(3):
        cv2.imwrite(str(folder / f"{k}.png"), np.full((120, 160, 3), 90 + k, np.uint8))
    done = personalive("animate", portrait_file, folder, "--size", "256", "-o", "out.mp4")
    assert done.code == 0
    assert "No face was found in the driving clip: the result is the still portrait." in done.err
    assert "3 waiting" in done.out
