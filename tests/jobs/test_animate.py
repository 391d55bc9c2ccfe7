from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from personalive.errors import InputError, MediaError, OutputExistsError, PipelineUnavailableError
from personalive.jobs import AnimateJob, run
from personalive.media import open_driving, read_image, read_provenance
from personalive.pipelines import registry
from personalive.pipelines.base import FrameState

pytestmark = pytest.mark.usefixtures("plugins")

LEVELS = [20 + 5 * k for k in range(30)]


@pytest.fixture(scope="session")
def levels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 30 pictures, each of another grey, lossless; number 8 is black."""
    folder = tmp_path_factory.mktemp("levels")
    for k, level in enumerate(LEVELS):
        cv2.imwrite(str(folder / f"{k:03d}.png"), np.full((48, 64, 3), 0 if k == 8 else level, np.uint8))
    return folder


@pytest.fixture(autouse=True)
def nothing_stays_behind(tmp_path: Path) -> Iterator[None]:
    yield
    assert list(tmp_path.rglob(".*")) == []
    time.sleep(0.02)  # a thread that has done its work takes a moment to be gone
    assert [t.name for t in threading.enumerate() if t.name.startswith("personalive-")] == []


def job(reference: Path, driving: Path, output: Path, **options: Any) -> AnimateJob:
    given: dict[str, Any] = {"pipeline": "echo", "size": 256} | options
    return AnimateJob(reference=reference, driving=driving, output=output, **given)


def shades(folder: Path) -> list[int]:
    return [int(read_image(path)[100, 100, 0]) for path in sorted(folder.iterdir())]


@pytest.mark.parametrize("count", [1, 2, 4, 7, 30])
def test_frame_i_shows_driving_frame_i(portrait_file: Path, levels: Path, tmp_path: Path, count: int) -> None:
    report = run(job(portrait_file, levels, tmp_path / "out", max_frames=count))
    expected = [0 if k == 8 else level for k, level in enumerate(LEVELS)][:count]
    assert shades(tmp_path / "out") == expected
    assert report.frames == count == sum(report.states.values())
    assert FrameState.TRANSITION not in report.states
    assert report.states.get(FrameState.HELD, 0) == (1 if count > 8 else 0)


def test_the_report_says_what_was_done(portrait_file: Path, clip: Path, tmp_path: Path) -> None:
    heard: list[tuple[str, int, int | None]] = []
    output = tmp_path / "out.mp4"
    report = run(
        job(portrait_file, clip, output, parameters={"gain": 0.5}), lambda *event: heard.append(event)
    )
    assert (report.pipeline, report.why, report.output) == ("echo", "asked for", output)
    assert (report.frames, report.fps, report.width, report.height) == (30, 25.0, 256, 256)
    assert report.duration == pytest.approx(1.2)
    assert report.speed > 0
    assert [event for event in heard if event[0] == "animating"] == [
        ("animating", k + 1, 30) for k in range(30)
    ]
    mark = read_provenance(output)
    assert mark is not None
    assert mark["pipeline"] == "echo"
    assert mark["digital_source_type"].endswith("compositeSynthetic")


@pytest.mark.parametrize("audio", [True, False])
def test_the_drivings_sound_comes_along(portrait_file: Path, clip: Path, tmp_path: Path, audio: bool) -> None:
    output = tmp_path / "out.mp4"
    run(job(portrait_file, clip, output, audio=audio, start=0.2))
    with av.open(str(output)) as container:
        assert len(container.streams.video) == 1
        assert len(container.streams.audio) == (1 if audio else 0)
        if audio:
            length = sum(frame.samples for frame in container.decode(audio=0)) / 44100
            assert length == pytest.approx(1.0, abs=0.06)


@pytest.mark.parametrize(("fps", "frames"), [(12.5, 15), (50.0, 60), (None, 30)])
def test_another_rate_keeps_the_length(
    portrait_file: Path, clip: Path, tmp_path: Path, fps: float | None, frames: int
) -> None:
    report = run(job(portrait_file, clip, tmp_path / "out.mp4", fps=fps))
    assert report.frames == frames
    assert report.duration == pytest.approx(1.2)


def test_start_end_and_limit(portrait_file: Path, levels: Path, tmp_path: Path) -> None:
    run(job(portrait_file, levels, tmp_path / "a", start=0.4, end=0.8))
    assert shades(tmp_path / "a") == LEVELS[10:20]
    run(job(portrait_file, levels, tmp_path / "b", start=0.4, max_frames=3))
    assert shades(tmp_path / "b") == LEVELS[10:13]


@pytest.mark.parametrize(
    ("suffix", "rate"), [(".png", None), (".jpg", 60.0), (".webp", None), (".mp4", 60.0)]
)
def test_a_still_drives_one_frame(
    portrait_file: Path, levels: Path, tmp_path: Path, suffix: str, rate: float | None
) -> None:
    output = tmp_path / f"out{suffix}"
    report = run(job(portrait_file, levels / "003.png", output, fps=rate))
    assert report.frames == 1
    assert "003.png is a still" in report.notes[0]
    with open_driving(output) as result:
        (frame,) = list(result)
    assert int(frame.image[100, 100, 0]) == pytest.approx(LEVELS[3], abs=3)
    assert read_provenance(output) is not None


def test_how_the_pipeline_runs_here_is_a_note(
    portrait_file: Path, levels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "8 GB card: references wait on the host (low_vram=on)."
    monkeypatch.setattr(registry.get_pipeline("echo"), "notes", (said,))
    assert run(job(portrait_file, levels, tmp_path / "out", max_frames=1)).notes == (said,)


def test_a_picture_cannot_hold_a_clip(portrait_file: Path, levels: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"out\.png is one picture, but .* has many frames"):
        run(job(portrait_file, levels, tmp_path / "out.png"))
    assert run(job(portrait_file, levels, tmp_path / "out.png", max_frames=1)).frames == 1


def test_paste_back_keeps_the_rest_of_the_still(portrait_file: Path, levels: Path, tmp_path: Path) -> None:
    run(job(portrait_file, levels, tmp_path / "out.png", paste_back=True, max_frames=1))
    result, still = read_image(tmp_path / "out.png"), read_image(portrait_file)
    assert result.shape == still.shape
    assert np.array_equal(result[300:], still[300:])
    assert int(result[130, 225, 0]) == LEVELS[0]


def test_the_whole_picture_and_sizes_given_as_parameters(portrait: Any, levels: Path, tmp_path: Path) -> None:
    wide = tmp_path / "wide.png"
    cv2.imwrite(str(wide), portrait[:300, :, ::-1])
    report = run(job(wide, levels, tmp_path / "a", crop=False, max_frames=1))
    assert (report.width, report.height) == (448, 256)
    report = run(job(wide, levels, tmp_path / "b", parameters={"width": 320}, max_frames=1))
    assert (report.width, report.height) == (320, 256)
    report = run(job(wide, levels, tmp_path / "c", side_by_side=True, paste_back=True, max_frames=1))
    assert report.width > 512 * 2


def test_gif_and_side_by_side(portrait_file: Path, clip: Path, tmp_path: Path) -> None:
    report = run(job(portrait_file, clip, tmp_path / "out.gif", max_frames=5, side_by_side=True))
    assert report.frames == 5
    assert any("holds no sound" in warning for warning in report.warnings)


def test_a_truncated_clip_gives_what_it_holds_and_a_warning(
    portrait_file: Path, tmp_path: Path, portrait: Any
) -> None:
    clip = tmp_path / "clip.avi"
    with av.open(str(clip), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 128, 128, "yuvj420p"
        for k in range(30):
            noise = np.random.default_rng(k).integers(0, 255, (128, 128, 3)).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(noise, format="rgb24")))
        container.mux(stream.encode(None))
    cut = tmp_path / "cut.avi"
    cut.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    report = run(job(portrait_file, cut, tmp_path / "out"))
    assert 5 < report.frames < 30
    assert any("damaged" in warning for warning in report.warnings)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 500}, "multiple of 64"),
        ({"size": 2048}, "multiple of 64"),
        ({"start": -1.0}, "start must be"),
        ({"start": 2.0, "end": 1.0}, "must come after"),
        ({"start": float("nan")}, "start must be"),
        ({"end": float("nan")}, "must come after"),
        ({"fps": 0.0}, "frame rate"),
        ({"fps": float("inf")}, "frame rate"),
        ({"max_frames": 0}, "At least one frame"),
        ({"start": 500.0}, "there is nothing after 500 s"),
        ({"seed": -1}, "seed = -1"),
        ({"parameters": {"gain": 9}}, "gain = 9"),
        ({"parameters": {"gane": 1}}, "no parameter 'gane'"),
        ({"parameters": {"width": 300}}, "width = 300"),
        ({"pipeline": "nonesuch"}, "no pipeline 'nonesuch'"),
    ],
)
def test_what_cannot_be_is_refused_in_words(
    portrait_file: Path, clip: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        run(job(portrait_file, clip, tmp_path / "out.mp4", **options))
    assert list(tmp_path.iterdir()) == []


def test_an_existing_output_is_kept_unless_told(portrait_file: Path, clip: Path, tmp_path: Path) -> None:
    for output in (tmp_path / "out.mp4", tmp_path / "out.png"):
        output.write_bytes(b"dear")
        with pytest.raises(OutputExistsError):
            run(job(portrait_file, clip, output, max_frames=1))
        assert output.read_bytes() == b"dear"
        run(job(portrait_file, clip, output, max_frames=1, overwrite=True))
        assert output.read_bytes() != b"dear"


def test_an_input_is_never_overwritten(portrait_file: Path, clip: Path, tmp_path: Path) -> None:
    link = tmp_path / "out.mp4"
    link.symlink_to(clip)
    before = clip.read_bytes()
    with pytest.raises(InputError, match="would overwrite the driving clip"):
        run(job(portrait_file, clip, link, overwrite=True))
    with pytest.raises(InputError, match="would overwrite the reference"):
        run(job(portrait_file, clip, portrait_file, overwrite=True))
    assert clip.read_bytes() == before


def test_a_missing_folder_is_told_before_any_work(portrait_file: Path, clip: Path, tmp_path: Path) -> None:
    for name in ("no/out.mp4", "no/out.png"):
        with pytest.raises(MediaError, match="does not exist"):
            run(job(portrait_file, clip, tmp_path / name, max_frames=1))


def test_an_unavailable_pipeline_says_what_to_do(portrait_file: Path, clip: Path, tmp_path: Path) -> None:
    with pytest.raises(PipelineUnavailableError, match="download_models"):
        run(job(portrait_file, clip, tmp_path / "out.mp4", pipeline="missing"))


def test_a_defect_of_the_pipeline_is_not_hidden(portrait_file: Path, clip: Path, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="broke down as told"):
        run(job(portrait_file, clip, tmp_path / "out.mp4", parameters={"fail_at": 9}))
    assert list(tmp_path.iterdir()) == []
