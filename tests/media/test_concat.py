from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from personalive.errors import MediaError, OutputExistsError
from personalive.media import (
    AudioTrack,
    Provenance,
    concat_videos,
    open_driving,
    open_writer,
    read_provenance,
)
from personalive.media.types import Image

MARK = Provenance("personalive test", "join")


def picture(number: int, side: int = 64) -> Image:
    return np.random.default_rng(number).integers(0, 255, (side, side, 3)).astype(np.uint8)


def parts(folder: Path, suffix: str, lengths: tuple[int, ...], fps: float) -> list[Path]:
    made: list[Path] = []
    number = 0
    for length in lengths:
        made.append(folder / f"part-{len(made)}{suffix}")
        with open_writer(made[-1], width=64, height=64, fps=fps, provenance=MARK) as writer:
            for _ in range(length):
                writer.write(picture(number))
                number += 1
    return made


@pytest.mark.parametrize(
    ("suffix", "lengths", "fps"),
    [(".mp4", (7, 5, 1), 29.97), (".mov", (4, 2), 25), (".webm", (5, 3, 4), 240), (".mp4", (1,), 12.5)],
)
def test_every_frame_of_every_part_at_its_time(
    tmp_path: Path, suffix: str, lengths: tuple[int, ...], fps: float
) -> None:
    pieces, output = parts(tmp_path, suffix, lengths, fps), tmp_path / f"out{suffix}"
    assert concat_videos(output, pieces, fps=fps, provenance=MARK) == []
    expected = []
    for piece in pieces:
        with open_driving(piece) as source:
            expected += [frame.image for frame in source]
    with open_driving(output) as source:
        assert source.info.fps == pytest.approx(fps, rel=1e-3)
        found = list(source)
    assert len(found) == len(expected) == sum(lengths)
    for k, (frame, image) in enumerate(zip(found, expected, strict=True)):
        assert frame.time == pytest.approx(k / fps, abs=0.0011)
        assert np.array_equal(frame.image, image)
    assert read_provenance(output) == MARK.metadata() | (read_provenance(output) or {})


def test_the_sound_runs_through(tmp_path: Path, clip: Path) -> None:
    pieces = parts(tmp_path, ".mp4", (8, 8, 8), 25)
    for staging in (None, tmp_path / "staging"):
        if staging is not None:
            staging.mkdir()
        output = tmp_path / f"{staging is None}.mp4"
        concat_videos(output, pieces, fps=25, provenance=MARK, audio=AudioTrack(clip, 0.1), staging=staging)
        with av.open(str(output)) as container:
            length = sum(frame.samples for frame in container.decode(audio=0)) / 44100
        assert length == pytest.approx(24 / 25, abs=0.06)
    assert (tmp_path / "True.mp4").read_bytes() == (tmp_path / "False.mp4").read_bytes()


def test_what_cannot_be_joined_leaves_nothing(tmp_path: Path) -> None:
    pieces, output = parts(tmp_path, ".mp4", (5, 5), 25), tmp_path / "out.mp4"
    larger = tmp_path / "larger.mp4"
    with open_writer(larger, width=96, height=96, fps=25, provenance=MARK) as writer:
        writer.write(picture(0, 96))
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(pieces[1].read_bytes()[:900])
    for wrong, words in (
        ([pieces[0], larger], "another way"),
        ([pieces[0], cut], "cut short or damaged"),
        ([pieces[0], tmp_path / "missing.mp4"], "missing.mp4"),
        ([], "no frames"),
    ):
        with pytest.raises(MediaError, match=words):
            concat_videos(output, wrong, fps=25, provenance=MARK)
    output.write_bytes(b"dear")
    with pytest.raises(OutputExistsError):
        concat_videos(output, pieces, fps=25, provenance=MARK)
    assert output.read_bytes() == b"dear"
    assert list(tmp_path.glob(".*")) == []
