from __future__ import annotations

import os
import subprocess
import sys
import time
from importlib.resources import files
from pathlib import Path
from typing import Any

import av
import pytest

from personalive.errors import CannotResumeError, InputError
from personalive.jobs import AnimateJob, run, segments
from personalive.jobs.animate_job import Report
from personalive.jobs.checkpoint_dir import CheckpointDir
from personalive.jobs.layouts import ResultLayout
from personalive.media import open_driving, read_provenance
from personalive.media.container_writer import ContainerWriter
from personalive.media.muxer import Muxer
from personalive.pipelines.base import Session
from tests.jobs.lasting_plugin.lasting_pipeline import LastingSession
from tests.signals import KILL

pytestmark = pytest.mark.usefixtures("lasting")

SAMPLE = Path(str(files("personalive") / "samples" / "driving.mp4"))
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two or three steps: the clip's 30 frames make segments of 9, 8, 8 and 5."""
    monkeypatch.setattr(segments, "DEFAULT_SEGMENT_FRAMES", 6)


@pytest.fixture
def given(portrait_file: Path, clip: Path, tmp_path: Path) -> dict[str, Any]:
    return {
        "reference": portrait_file,
        "driving": clip,
        "output": tmp_path / "out.mp4",
        "pipeline": "lasting",
        "size": 256,
        "resume": True,
    }


Content = bytes | list[tuple[int, int | None, int | None, bytes]]

_whole: dict[str, Content] = {}


def content(path: Path) -> Content:
    """The file, byte for byte, or where it has random ids, as WebM has, its packets."""
    if path.suffix != ".webm":
        return path.read_bytes()
    with av.open(str(path)) as container:
        return [(packet.stream_index, packet.pts, packet.dts, bytes(packet)) for packet in container.demux()]


def whole(given: dict[str, Any], tmp_path: Path) -> Content:
    """What an uninterrupted run makes of it."""
    key = repr({name: value for name, value in given.items() if name not in {"output", "parameters"}})
    if key not in _whole:
        folder = tmp_path / "whole"
        folder.mkdir()
        run(AnimateJob(**{**given, "output": folder / given["output"].name}))
        assert [path.name for path in folder.iterdir()] == [given["output"].name]
        _whole[key] = content(folder / given["output"].name)
    return _whole[key]


class Trap:
    """Raises instead of the `call`-th call of a method, once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: type, name: str, call: int) -> None:
        self.calls = 0
        real = getattr(owner, name)

        def method(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            if self.calls == call:
                raise KeyboardInterrupt
            return real(*args, **kwargs)

        monkeypatch.setattr(owner, name, method)


def stop_at_step_five(job: AnimateJob, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        Trap(patch, LastingSession, "step", 5)
        with pytest.raises(KeyboardInterrupt):
            run(job)


PLACES: list[tuple[type, str, int]] = [
    *((LastingSession, "step", call) for call in (1, 3, 4, 6, 8)),
    *((LastingSession, "snapshot", call) for call in (1, 2, 4)),
    (LastingSession, "flush", 1),
    (ResultLayout, "compose", 12),
    *((ContainerWriter, "_complete", call) for call in (1, 4)),
    *((CheckpointDir, "save", call) for call in (1, 3, 4)),
    (Muxer, "complete", 5),
    (CheckpointDir, "remove", 1),
]


@pytest.mark.parametrize(("owner", "name", "call"), PLACES)
def test_stopped_anywhere_it_goes_on_to_the_same_file(
    given: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    owner: type,
    name: str,
    call: int,
) -> None:
    expected = whole(given, tmp_path)
    trap = Trap(monkeypatch, owner, name, call)
    job = AnimateJob(**given, overwrite=name == "remove")
    with pytest.raises(KeyboardInterrupt):
        run(job)
    assert {path.name for path in tmp_path.glob("*out*")} <= {"out.mp4", ".out.mp4.resume"}
    assert job.output.exists() == (name == "remove")
    left = list((tmp_path / ".out.mp4.resume").glob(".*"))
    assert left == []
    assert trap.calls == call
    run(job)
    assert content(job.output) == expected
    assert list(tmp_path.glob(".*")) == []


@pytest.mark.parametrize("steps", [3, 5])
def test_stopped_again_and_again(
    given: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    expected = whole(given, tmp_path)
    job = AnimateJob(**given)
    stops = 0
    for _ in range(9):
        with monkeypatch.context() as patch:
            Trap(patch, LastingSession, "step", steps + 1)
            try:
                run(job)
                break
            except KeyboardInterrupt:
                stops += 1
    assert stops == {3: 2, 5: 1}[steps]
    assert content(job.output) == expected


@pytest.mark.parametrize(
    "options",
    [
        {"side_by_side": True, "fps": 20.0},
        {"paste_back": True, "start": 0.1, "end": 1.0, "audio": False},
        {"max_frames": 17, "start": 0.2},
        {"output": "out.webm", "max_frames": 20},
        {"output": "out.mov", "max_frames": 20, "fps": 29.97},
    ],
)
def test_whatever_is_asked_for(
    given: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    given |= options
    given["output"] = tmp_path / given["output"]
    expected = whole(given, tmp_path)
    stop_at_step_five(AnimateJob(**given), monkeypatch)
    run(AnimateJob(**given))
    assert content(given["output"]) == expected


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_the_joined_file_is_as_any_other(given: dict[str, Any], tmp_path: Path, suffix: str) -> None:
    """As one made in one go by a pipeline with no memory, but for where its keyframes are."""
    pieces, plain = tmp_path / f"pieces{suffix}", tmp_path / f"plain{suffix}"
    options = {**given, "pipeline": "echo", "max_frames": 26}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Session, "snapshot", lambda self: b"kept")
        run(AnimateJob(**{**options, "output": pieces}))
    run(AnimateJob(**{**options, "output": plain, "resume": False}))
    assert read_provenance(pieces) == read_provenance(plain)
    with open_driving(pieces) as one, open_driving(plain) as other:
        assert one.info == other.info
        for frame, same in zip(one, other, strict=True):
            assert frame.time == same.time
            assert frame.image.mean() == pytest.approx(same.image.mean(), abs=2)
    assert sound_of(pieces) == sound_of(plain)


def sound_of(path: Path) -> list[tuple[int | None, bytes]]:
    with av.open(str(path)) as container:
        return [(packet.pts, bytes(packet)) for packet in container.demux(audio=0)]


def test_killed_outright(given: dict[str, Any], tmp_path: Path) -> None:
    expected = whole(given, tmp_path)
    given["parameters"] = {"pause": 0.2}
    code = (
        "from pathlib import PosixPath\nfrom personalive.jobs import AnimateJob, segments, run\n"
        f"segments.DEFAULT_SEGMENT_FRAMES = 6\nrun(AnimateJob(**{given!r}))\n"
    )
    plugins = [str(ROOT), str(ROOT / "tests/plugin"), str(ROOT / "tests/jobs/lasting_plugin")]
    paths = os.pathsep.join([*plugins, os.environ.get("PYTHONPATH", "")])
    work = tmp_path / ".out.mp4.resume"
    with subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": paths}) as process:
        while not (work / "segment-00001.mp4").exists() and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(KILL)
    assert process.returncode == -KILL
    assert [path.name for path in tmp_path.glob("*out*")] == [work.name]
    heard: list[tuple[str, int, int | None]] = []
    run(AnimateJob(**given), lambda *event: heard.append(event))
    assert any(stage.startswith("continuing after") for stage, *_ in heard)
    assert content(given["output"]) == expected


@pytest.fixture
def stopped(given: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A job of which 9 of 30 frames are finished."""
    stop_at_step_five(AnimateJob(**given), monkeypatch)
    return given


def test_it_says_where_it_goes_on_and_counts_everything(stopped: dict[str, Any]) -> None:
    heard: list[tuple[str, int, int | None]] = []
    report: Report = run(AnimateJob(**stopped), lambda *event: heard.append(event))
    assert ("continuing after 9 frames", 0, None) in heard
    assert [event for event in heard if event[0] == "animating"] == [
        ("animating", k + 1, 30) for k in range(9, 30)
    ]
    assert heard[-1] == ("finishing", 30, 30)
    assert report.frames == sum(report.states.values()) == 30
    assert "9 of the frames were made by an earlier run." in report.notes


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": 7}, "differs in seed, session seed:"),
        ({"max_frames": 29}, "differs in max_frames:"),
        ({"parameters": {"gain": 0.5}}, "differs in gain:"),
        ({"driving": "other"}, "differs in driving clip:"),
        ({"reference": "other"}, "differs in reference:"),
    ],
)
def test_another_job_does_not_go_on(
    stopped: dict[str, Any], tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    changed = {**stopped, **change}
    for name in ("driving", "reference"):
        if changed[name] == "other":
            # The same to look at, but other bytes.
            changed[name] = tmp_path / stopped[name].name
            changed[name].write_bytes(stopped[name].read_bytes() + b"\0\0\0\0")
    with pytest.raises(InputError, match=words) as error:
        run(AnimateJob(**changed))
    assert str(tmp_path / ".out.mp4.resume") in str(error.value)
    assert "overwrit" in str(error.value)
    assert (tmp_path / ".out.mp4.resume/segment-00000.mp4").exists()


def test_another_job_may_overwrite(stopped: dict[str, Any], tmp_path: Path) -> None:
    changed = {**stopped, "max_frames": 4, "overwrite": True}
    report = run(AnimateJob(**changed))
    assert (report.frames, report.notes) == (4, ())
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


def test_a_copied_or_touched_input_is_the_same(stopped: dict[str, Any], tmp_path: Path) -> None:
    copy = tmp_path / "copy" / stopped["driving"].name
    copy.parent.mkdir()
    copy.write_bytes(stopped["driving"].read_bytes())
    assert run(AnimateJob(**{**stopped, "driving": copy})).frames == 30


def test_a_pipeline_without_snapshots_is_refused(given: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(CannotResumeError, match="The echo pipeline cannot resume a run"):
        run(AnimateJob(**{**given, "pipeline": "echo"}))
    assert list(tmp_path.iterdir()) == []


def test_a_job_may_say_how_long_its_segments_are(given: dict[str, Any]) -> None:
    heard: list[tuple[int, int]] = []
    job = AnimateJob(**given, segment_frames=12)
    run(job, on_segment=lambda folder: heard.append((len(folder.state.segments), folder.state.frames)))
    assert heard == [(0, 0), (1, 13), (2, 25), (3, 30)]
    with pytest.raises(InputError, match="A segment must have 8 frames or more, not 7"):
        run(AnimateJob(**given, segment_frames=7))


def test_the_preview_goes_on(given: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from personalive.pipelines.preview.pipeline import PreviewSession

    given["pipeline"] = "preview"
    expected = whole(given, tmp_path)
    with monkeypatch.context() as patch:
        Trap(patch, PreviewSession, "step", 6)
        with pytest.raises(KeyboardInterrupt):
            run(AnimateJob(**given))
    assert "16 of the frames were made by an earlier run." in run(AnimateJob(**given)).notes
    assert content(given["output"]) == expected


@pytest.mark.parametrize("name", ["out.gif", "out.png", "folder", "out-%03d.png"])
def test_other_kinds_of_output_are_refused(given: dict[str, Any], tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="resuming needs a video"):
        run(AnimateJob(**{**given, "output": tmp_path / name}))
    assert list(tmp_path.iterdir()) == []


def test_nothing_finished_nothing_kept(given: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="broke down"):
        run(AnimateJob(**given, parameters={"fail_at": 3}))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_diffusion_pipeline_goes_on(
    given: dict[str, Any], test_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from personalive.pipelines.diffusion.session import PersonaLiveSession

    parameters = {"weights": test_weights, "width": 64, "height": 64, "face_detection": False}
    job = AnimateJob(
        **{**given, "pipeline": "personalive", "driving": SAMPLE, "parameters": parameters, "max_frames": 22}
    )
    run(job)
    expected = job.output.read_bytes()
    job.output.unlink()
    with monkeypatch.context() as patch:
        Trap(patch, PersonaLiveSession, "flush", 1)
        with pytest.raises(KeyboardInterrupt):
            run(job)
    assert "8 of the frames were made by an earlier run." in run(job).notes
    assert job.output.read_bytes() == expected
