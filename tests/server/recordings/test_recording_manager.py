from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from personalive.errors import InputError
from personalive.media import FragmentedWriter, VideoReader, fit_image, read_provenance
from personalive.media.types import Image
from personalive.pipelines.base import FrameState, PipelineInfo
from personalive.server.errors import ConflictError, NotFoundError
from personalive.server.recordings import recorder as recorder_module
from personalive.server.recordings import recovery
from personalive.server.recordings.recorder import SessionRecorder
from personalive.server.recordings.recording_manager import (
    InsufficientStorageError,
    RecordingManager,
    make_provenance,
)
from personalive.server.server import Server
from personalive.server.sessions.playout_buffer import SentFrame
from personalive.server.sessions.session_audio import SentAudio
from tests.server.parts import drive, encoded, loaded, opened, portrait, running

ROOT = Path(__file__).parents[3]
INFO = PipelineInfo(id="preview", name="preview", description="", chunk_frames=4)
PROVENANCE = make_provenance(INFO, "ab" * 32)


def sent(grey: int, time: float, side: int = 64) -> SentFrame:
    planes = np.zeros((side * 3 // 2, side), np.uint8)
    return SentFrame(np.full((side, side, 3), grey, np.uint8), planes, time, FrameState.ANIMATED, 0.0)


def record(path: Path, frames: Sequence[SentFrame], fps: float = 25.0, **limits: Any) -> SessionRecorder:
    done = threading.Event()
    limits.setdefault("max_duration_s", 60.0)
    recorder = SessionRecorder(path, PROVENANCE, fps=fps, on_end=done.set, **limits)
    for frame in frames:
        recorder.put_frame(frame)
    recorder.finish()
    assert done.wait(30)
    return recorder


def noise(count: int) -> list[SentFrame]:
    """Frames that take many bytes each."""
    pictures = np.random.default_rng(1).integers(0, 255, (count, 64, 64, 3), np.uint8)
    return [replace(sent(0, index / 30), image=picture) for index, picture in enumerate(pictures)]


def greys(path: Path) -> list[int]:
    with VideoReader(path) as video:
        return [round(float(frame.image.mean())) for frame in video]


def close(seen: Sequence[int], meant: Sequence[int]) -> bool:
    return len(seen) == len(meant) and all(abs(a - b) <= 3 for a, b in zip(seen, meant, strict=True))


def test_irregular_times_become_a_constant_rate(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    # At 25 per second: 40 is shown for three frames, 60 for none, 80 for one, 100 for two, 120 for one.
    frames = [sent(40, 7.0), sent(60, 7.111), sent(80, 7.119), sent(100, 7.16), sent(120, 7.24)]
    recorder = record(path, frames)
    assert close(greys(path), [40, 40, 40, 80, 100, 100, 120])
    assert recorder.progress.frames == 7
    assert recorder.seconds == pytest.approx(7 / 25)
    with VideoReader(path) as video:
        assert video.info.fps == pytest.approx(25)
    marks = read_provenance(path)
    assert marks is not None
    assert marks["reference_sha256"] == "ab" * 32
    assert marks["pipeline"] == "preview"
    assert marks["digital_source_type"].endswith("compositeSynthetic")


def test_clocks_that_jump_do_not_stretch_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    frames = [sent(40, 100.0), sent(80, 10_000.0), sent(120, 3.0), sent(160, 3.1)]
    recorder = record(path, frames, fps=10)
    assert recorder.seconds == pytest.approx(recorder_module._MAX_GAP_S + 0.2)


def test_another_size_midway_is_fitted(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    recorder = record(path, [sent(40, 0.0), sent(80, 0.1, side=96)], fps=10)
    assert recorder.progress.size == (64, 64)
    assert close(greys(path), [40, 80])


def test_an_hour_is_the_most(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    recorder = record(path, [sent(k, k / 10) for k in range(30)], fps=10, max_duration_s=2.0)
    assert recorder.progress.frames == 20
    assert "after 2 s" in str(recorder.progress.note)
    assert len(greys(path)) == 20


def test_a_disk_that_fills_up_ends_it_with_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    frames = [sent(k, k / 10) for k in range(60)]
    recorder = record(path, frames, fps=10, min_free_bytes=10**18)
    assert "nearly full" in str(recorder.progress.note)
    assert recorder.progress.error is None
    assert len(greys(path)) == recorder.progress.frames == 20


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    recorder = record(folder / "a.mp4", [sent(0, 0.0)])
    told = str(recorder.progress.error)
    assert "The recording ended early: No such file or directory." in told
    assert "cannot be used" in told
    assert str(tmp_path) not in told
    recorder = record(tmp_path / "b.mp4", [])
    assert "no frame came" in str(recorder.progress.error)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_taken_away_meanwhile_ends_it_in_words(tmp_path: Path) -> None:
    folder = tmp_path / "volume"
    folder.mkdir()
    done = threading.Event()
    recorder = SessionRecorder(folder / "a.mp4", PROVENANCE, fps=10, max_duration_s=60, on_end=done.set)
    recorder.put_frame(sent(0, 0.0))
    recorder.put_frame(sent(0, 0.5))
    while not recorder.progress.frames:
        assert not done.wait(0.01)
    shutil.rmtree(folder)
    for k in range(60):
        recorder.put_frame(sent(k, 1 + k / 10))
    assert done.wait(30)  # without `finish`
    assert "cannot be used" in str(recorder.progress.error)
    assert str(tmp_path) not in str(recorder.progress.error)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="RLIMIT_FSIZE is POSIX's")
def test_what_was_recorded_before_the_disk_refused_more_is_kept(tmp_path: Path) -> None:
    """The limit on the size of a file stands for the disk: writing fails in the middle of it."""
    path = tmp_path / "20260102-030405-0123abcd.mp4"
    script = f"""
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from pathlib import Path
from tests.server.recordings.test_recording_manager import noise, record
frames = noise(90)
resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))
recorder = record(Path({str(path)!r}), frames, fps=30)
print(recorder.progress.error, recorder.progress.note, recorder.progress.frames, sep="\\n")
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    error, note, frames = done.stdout.splitlines()
    assert (error, note) == ("None", "The recording ended early: File too large.")
    assert 20 < int(frames) < 90
    assert len(greys(path)) == int(frames)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.slow
def test_what_a_killed_server_was_recording_is_completed_by_the_next(tmp_path: Path) -> None:
    path = tmp_path / "20260102-030405-0123abcd.mp4"
    empty = tmp_path / ".20260102-030405-0123abce.fragments.mp4"
    empty.write_bytes(b"")
    copy = tmp_path / ".20260102-030405-0123abcd.partial-1-0.mp4"
    copy.write_bytes(b"half of it")
    script = f"""
import time
from pathlib import Path
from tests.server.recordings.test_recording_manager import PROVENANCE, noise
from personalive.server.recordings.recorder import SessionRecorder
recorder = SessionRecorder(Path({str(path)!r}), PROVENANCE, fps=30, max_duration_s=60, on_end=lambda: None)
for frame in noise(150):
    recorder.put_frame(frame)
while recorder.progress.frames < 140:
    time.sleep(0.01)
print("recording", flush=True)
time.sleep(60)
"""
    writer = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=ROOT)
    try:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"recording\n"
        assert recovery.recover(tmp_path) == []  # it is at work
        assert recovery.list_unfinished(tmp_path) == {path.stem}
    finally:
        writer.kill()
        writer.wait()

    async def next_server() -> None:
        recordings = RecordingManager(tmp_path)
        recordings.start_recovery()
        async with asyncio.timeout(30):
            while not await recordings.all():
                await asyncio.sleep(0.05)
        (info,) = await recordings.all()
        assert (info.state, info.recording_id) == ("finished", path.stem)
        assert "ended before this recording did" in str(info.note)
        await recordings.stop()

    asyncio.run(next_server())
    assert 60 < len(greys(path)) <= 150
    marks = read_provenance(path)
    assert marks is not None
    assert (marks["reference_sha256"], marks["pipeline"]) == ("ab" * 32, "preview")
    assert list(tmp_path.iterdir()) == [path]


def sounding(path: Path) -> list[float]:
    """When clicks begin in the sound of a file, in seconds."""
    found: list[float] = []
    with av.open(str(path)) as container:
        for frame in container.decode(audio=0):
            assert frame.time is not None
            for place in np.flatnonzero(np.abs(frame.to_ndarray()[0]) > 0.1):
                at = frame.time + float(place) / frame.sample_rate
                if not found or at - found[-1] > 0.05:
                    found.append(at)
                else:
                    found[-1] = min(found[-1], at)
    return found


def clicking(begin: int, count: int, every: int) -> NDArray[np.int16]:
    """Samples from `begin` on, with a short tone at each multiple of `every`."""
    within = np.arange(begin, begin + count) % every
    wave = np.where(within < 960, 12_000 * np.sin(2 * np.pi * 1000 * within / 48_000), 0)
    return np.repeat(wave.astype(np.int16)[:, None], 2, axis=1)


@pytest.mark.parametrize("spans", [[(0, 9)], [(1.5, 9)], [(0.5, 1.7), (2.6, 9)]])
def test_sound_is_recorded_where_its_picture_is(tmp_path: Path, spans: list[tuple[float, float]]) -> None:
    """The clock of the session began long ago, and sound comes a little before or after its picture.

    It is on in `spans` of seconds, and takes no positions where it is off.
    """
    done = threading.Event()
    recorder = SessionRecorder(tmp_path / "a.mp4", PROVENANCE, fps=25, max_duration_s=60, on_end=done.set)
    blocks = heard = 0
    for index in range(100):
        recorder.put_frame(sent(200 if index % 25 == 0 else 20, 500 + index / 25))
        while blocks * 0.02 < (index + (index % 3 - 1)) / 25:
            samples = clicking(960 * blocks, 960, 48_000)
            if any(begin <= blocks * 0.02 < end for begin, end in spans):
                recorder.put_audio(SentAudio(samples, 500 + blocks * 0.02, 77_000 + 960 * heard, 0.0))
                heard += 1
            blocks += 1
    recorder.finish()
    assert done.wait(30)
    assert recorder.progress.error is None
    bright = [index / 25 for index, grey in enumerate(greys(tmp_path / "a.mp4")) if grey > 150]
    assert bright == [0.0, 1.0, 2.0, 3.0]
    # The first one is at the very beginning, where sound fades in.
    clicks = [at for at in bright[1:] if any(begin <= at < end for begin, end in spans)]
    assert [at for at in sounding(tmp_path / "a.mp4") if at > 0.5] == pytest.approx(clicks, abs=0.005)
    with av.open(str(tmp_path / "a.mp4")) as container:
        (track,) = container.streams.audio
        assert (track.start_time, container.streams.video[0].start_time) == (0, 0)


def test_a_recording_without_sound_has_no_track_for_it(tmp_path: Path) -> None:
    record(tmp_path / "a.mp4", [sent(20, index / 25) for index in range(50)])
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert [stream.type for stream in container.streams] == ["video"]


def test_what_is_left_of_a_recording_keeps_its_sound(tmp_path: Path) -> None:
    path = tmp_path / "20260102-030405-0123abcd.mp4"
    fragments = recovery.fragments_path(path)
    writer = FragmentedWriter(
        fragments, size=(64, 64), rate=Fraction(25), provenance=PROVENANCE, audio_rate=48_000
    )
    for index, frame in enumerate(noise(200)):
        writer.write(frame.image)
        writer.write_audio(clicking(1920 * index, 1920, 48_000))
    writer.close()
    whole = fragments.read_bytes()
    fragments.write_bytes(whole[: len(whole) * 3 // 4])
    assert recovery.recover(tmp_path) == [path.stem]
    frames = len(greys(path))
    assert 50 < frames < 200
    heard = [at for at in sounding(path) if at > 0.5]
    assert heard == pytest.approx(range(1, len(heard) + 1), abs=0.005)
    assert len(heard) >= frames // 25 - 2


def test_an_encoder_that_falls_behind_drops_and_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder_module, "_MAX_PENDING_BYTES", 3 * 64 * 64 * 3)
    go = threading.Event()

    def slow(image: Image, size: tuple[int, int]) -> Image:
        go.wait(30)
        return fit_image(image, size)

    monkeypatch.setattr(recorder_module, "fit_image", slow)
    done = threading.Event()
    recorder = SessionRecorder(tmp_path / "a.mp4", PROVENANCE, fps=10, max_duration_s=60, on_end=done.set)
    for k in range(50):
        recorder.put_frame(sent(k, k / 10))
    assert recorder.progress.dropped >= 50 - 6
    go.set()
    recorder.put_frame(sent(200, 5.0))
    recorder.finish()
    assert done.wait(30)
    assert recorder.progress.error is None


def in_session(
    tmp_path: Path, test: Callable[[Server], Coroutine[Any, Any, None]], pipeline_id: str = "echo"
) -> None:
    async def run() -> None:
        async with running(tmp_path / "recordings", max_sessions=3) as server:
            await loaded(server.pipelines, pipeline_id)
            await server.references.add(encoded(portrait()))
            await test(server)

    asyncio.run(run())


def test_a_session_is_recorded_from_start_to_stop(plugins: None, tmp_path: Path) -> None:
    async def test(server: Server) -> None:
        stream, recordings = await opened(server), server.recordings
        begun = await recordings.start(stream, fps=25, reference_sha256="cd" * 32)
        assert (begun.state, begun.session_id, begun.url) == ("recording", stream.id, None)
        with pytest.raises(ConflictError, match="recorded already"):
            await recordings.start(stream)
        with pytest.raises(ConflictError, match="stop it first"):
            await recordings.get_path(begun.recording_id)
        with pytest.raises(ConflictError):
            await recordings.delete(begun.recording_id)
        await drive(stream, 40)
        info = await recordings.finish(stream.id)
        assert (info.state, info.note, info.dropped) == ("finished", None, 0)
        assert (info.width, info.height) == (256, 256)
        assert info.seconds is not None
        assert 0.3 < info.seconds < 3
        assert info.url == f"/api/v1/recordings/{begun.recording_id}"
        path = await recordings.get_path(begun.recording_id)
        assert path.stat().st_size == info.bytes
        assert len(greys(path)) == info.frames
        marks = read_provenance(path)
        assert marks is not None
        assert marks["reference_sha256"] == "cd" * 32
        assert await recordings.all() == [info]
        with pytest.raises(NotFoundError, match="not being recorded"):
            await recordings.finish(stream.id)
        again = await recordings.start(stream)
        assert [one.state for one in await recordings.all()] == ["recording", "finished"]
        await drive(stream, 12)
        await recordings.finish(stream.id)
        await recordings.delete(begun.recording_id)
        assert [one.recording_id for one in await recordings.all()] == [again.recording_id]
        with pytest.raises(NotFoundError):
            await recordings.get_path(begun.recording_id)

    in_session(tmp_path, test)


@pytest.mark.slow
def test_the_end_of_a_session_completes_its_file(plugins: None, tmp_path: Path) -> None:
    async def test(server: Server) -> None:
        stream, recordings = await opened(server), server.recordings
        await recordings.start(stream)
        await drive(stream, 20)
        await stream.end("client_closed")
        async with asyncio.timeout(20):
            while (await recordings.all())[0].state == "recording":
                await asyncio.sleep(0.01)
        (info,) = await recordings.all()
        assert info.state == "finished"
        with pytest.raises(NotFoundError):
            await recordings.start(stream)

    in_session(tmp_path, test)


@pytest.mark.slow
def test_who_stops_one_that_ended_by_itself_is_told_what_is_there(plugins: None, tmp_path: Path) -> None:
    async def test(server: Server) -> None:
        stream = await opened(server)
        recordings = RecordingManager(tmp_path / "short", max_duration_s=0.2)
        begun = await recordings.start(stream)
        await drive(stream, 40)
        async with asyncio.timeout(20):
            while (await recordings.all())[0].state == "recording":
                await asyncio.sleep(0.01)
        info = await recordings.finish(stream.id)
        assert (info.recording_id, info.state, info.url is None) == (begun.recording_id, "finished", False)
        assert "after 0.2 s" in str(info.note)
        with pytest.raises(NotFoundError, match="not being recorded"):
            await recordings.finish(stream.id)

    in_session(tmp_path, test)


@pytest.mark.slow
def test_stopping_the_server_completes_all_files(plugins: None, tmp_path: Path) -> None:
    async def test(server: Server) -> None:
        streams = [await opened(server) for _ in range(2)]
        for stream in streams:
            await server.recordings.start(stream)
        await asyncio.gather(*(drive(stream, 20) for stream in streams))
        await server.recordings.stop()
        assert [one.state for one in await server.recordings.all()] == ["finished"] * 2

    in_session(tmp_path, test)


@pytest.mark.slow
def test_a_session_without_a_frame_leaves_a_note_and_no_file(plugins: None, tmp_path: Path) -> None:
    async def test(server: Server) -> None:
        stream = await opened(server)
        await server.recordings.start(stream)
        info = await server.recordings.finish(stream.id)
        assert (info.state, info.url) == ("failed", None)
        assert "no frame came" in str(info.note)
        assert list((tmp_path / "recordings").iterdir()) == []
        assert await server.recordings.all() == [info]
        await server.recordings.delete(info.recording_id)
        assert await server.recordings.all() == []

    in_session(tmp_path, test)


@pytest.mark.slow
def test_there_is_room_for_so_many(plugins: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(server: Server) -> None:
        streams = [await opened(server) for _ in range(2)]
        recordings = RecordingManager(tmp_path / "few", max_files=1)
        begun = await asyncio.gather(*map(recordings.start, streams), return_exceptions=True)
        (refused,) = (one for one in begun if isinstance(one, BaseException))
        assert isinstance(refused, InsufficientStorageError)
        assert str(refused) == "No more than 1 recordings are kept: delete some first."
        with pytest.raises(InputError, match="frame rate"):
            await RecordingManager(tmp_path / "other").start(streams[0], fps=0)
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(InsufficientStorageError, match="cannot be kept"):
            await RecordingManager(tmp_path / "file").start(streams[0])
        monkeypatch.setattr("personalive.server.recordings.recording_manager.MIN_FREE_BYTES", 10**18)
        with pytest.raises(InsufficientStorageError, match="nearly full"):
            await RecordingManager(tmp_path / "other").start(streams[0])
        await recordings.stop()

    in_session(tmp_path, test)


def test_files_of_an_earlier_run_are_listed_and_nothing_else(tmp_path: Path) -> None:
    name = "20260102-030405-0123abcd"
    (tmp_path / f"{name}.mp4").write_bytes(b"12345")
    (tmp_path / "holiday.mp4").write_bytes(b"mine")
    (tmp_path / ".20260102-030405-0123abce.partial-1-0.mp4").write_bytes(b"")

    async def test() -> None:
        recordings = RecordingManager(tmp_path)
        (info,) = await recordings.all()
        assert (info.recording_id, info.bytes, info.seconds, info.session_id) == (name, 5, None, None)
        assert info.started_at == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        assert await recordings.get_path(name) == tmp_path / f"{name}.mp4"
        for other in (
            "holiday",
            "../x",
            "",
            name + "\n",
            name.replace("0", "٠"),
            name.replace("0102", "9999"),
            "a" * 5000,
            "\0",
        ):
            with pytest.raises(NotFoundError):
                await recordings.get_path(other)
            with pytest.raises(NotFoundError):
                await recordings.delete(other)
        await recordings.delete(name)
        assert await recordings.all() == []
        assert (tmp_path / "holiday.mp4").exists()
        assert await RecordingManager(tmp_path / "none").all() == []

    asyncio.run(test())
