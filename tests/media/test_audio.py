from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import PIL.Image
import pytest

from personalive.media import AudioTrack, VideoReader, open_writer, resample

from .clips import PROVENANCE, level, patches, sound_of, write_clip

MAKES = {
    "aac.mp4": ("libx264", "aac", 44_100),
    "mp3.mp4": ("libx264", "libmp3lame", 44_100),
    "opus.webm": ("libvpx-vp9", "libopus", 48_000),
    "pcm.mkv": ("libx264", "pcm_s16le", 22_050),
    "flac.mkv": ("libx264", "flac", 96_000),
    "ac3.mov": ("libx264", "ac3", 48_000),
    "adts.avi": ("mpeg4", "aac", 48_000),
}
COPIED = {
    ("aac.mp4", "mp4"),
    ("aac.mp4", "mov"),
    ("mp3.mp4", "mp4"),
    ("mp3.mp4", "mov"),
    ("opus.webm", "webm"),
}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for name, (codec, audio, rate) in MAKES.items():
        images = [level(4 * i) for i in range(60)]
        write_clip(folder / name, images, codec=codec, audio=audio, audio_rate=rate)
    return folder


def animate(source: Path, target: Path, *, start: float = 0.0, end: float | None = None) -> list[str]:
    """Copy the pictures of a clip with its sound; return the warnings."""
    with (
        VideoReader(source, start=start, end=end) as reader,
        open_writer(
            target,
            width=reader.info.width,
            height=reader.info.height,
            fps=25,
            provenance=PROVENANCE,
            audio=AudioTrack(source, start),
        ) as writer,
    ):
        for frame in resample(reader, 25):
            writer.write(frame.image)
    return writer.warnings


def packets_of(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]


@pytest.mark.parametrize("name", sorted(MAKES))
@pytest.mark.parametrize("suffix", ["mp4", "mov", "webm"])
@pytest.mark.parametrize("span", [(0.0, 1.2), (1.01, None)])
def test_sound_is_as_long_as_the_video(
    clips: Path, tmp_path: Path, name: str, suffix: str, span: tuple[float, float | None]
) -> None:
    target = tmp_path / f"out.{suffix}"
    assert animate(clips / name, target, start=span[0], end=span[1]) == []
    codec, begin, finish, samples = sound_of(target)
    frames = list(VideoReader(target))
    length = frames[-1].time + frames[-1].duration
    assert abs(begin) <= 0.05
    assert abs(finish - length) <= 0.05
    assert abs(np.abs(samples).max() - 0.5) < 0.15
    assert codec == ("opus" if suffix == "webm" else "mp3" if name == "mp3.mp4" else "aac")


@pytest.mark.parametrize(("name", "suffix"), sorted(COPIED))
def test_accepted_codecs_are_copied_bit_for_bit(clips: Path, tmp_path: Path, name: str, suffix: str) -> None:
    target = tmp_path / f"out.{suffix}"
    animate(clips / name, target, start=0.8, end=1.6)
    original = set(packets_of(clips / name))
    copied = packets_of(target)
    assert len(copied) > 20
    assert all(packet in original for packet in copied)


def test_sound_stays_in_step(tmp_path: Path) -> None:
    # A click with a flash, a second in.
    source = tmp_path / "flash.mkv"
    with av.open(str(source), "w") as container:
        video = container.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio = container.add_stream("pcm_s16le", rate=48_000)
        for index in range(50):
            frame = av.VideoFrame.from_ndarray(level(255 if index == 25 else 0), format="rgb24")
            frame.pts = index
            container.mux(video.encode(frame))
            click = np.full((1, 1920 * 2), 20_000 if index == 25 else 0, np.int16)
            sound = av.AudioFrame.from_ndarray(click, format="s16", layout="stereo")
            sound.sample_rate, sound.pts = 48_000, index * 1920
            container.mux(audio.encode(sound))
        container.mux(video.encode(None))
        container.mux(audio.encode(None))
    for suffix in ("mp4", "webm"):
        for start in (0.0, 0.48):
            target = tmp_path / f"{start}.{suffix}"
            assert animate(source, target, start=start) == []
            _, begin, _, samples = sound_of(target)
            heard = begin + float(np.argmax(np.abs(samples) > 0.3)) / 48_000
            seen = next(frame.time for frame in VideoReader(target) if frame.image.mean() > 128)
            assert seen == pytest.approx(1 - start)
            assert heard == pytest.approx(seen, abs=0.03)


@pytest.mark.parametrize("name", ["out.gif", "frames"])
def test_outputs_without_sound_say_so(clips: Path, tmp_path: Path, name: str) -> None:
    warnings = animate(clips / "aac.mp4", tmp_path / name, end=0.2)
    assert len(warnings) == 1
    assert "holds no sound: that of aac.mp4 is left out" in warnings[0]


@pytest.mark.parametrize("name", ["still.png", "silent.mp4", "silent.gif", "folder"])
def test_sources_without_sound_are_no_problem(tmp_path: Path, name: str) -> None:
    source = tmp_path / name
    if name == "still.png":
        PIL.Image.fromarray(patches()).save(source)
    elif name == "folder":
        source.mkdir()
        PIL.Image.fromarray(patches()).save(source / "1.png")
    else:
        codec, pixel_format = ("gif", "pal8") if name.endswith("gif") else ("libx264", "yuv420p")
        write_clip(source, [level(1)] * 5, codec=codec, pixel_format=pixel_format)
    for target in ("out.mp4", "out.gif"):
        assert animate(source, tmp_path / target) == []
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert not container.streams.audio


def test_damaged_sound_is_a_warning(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "a.mkv", [level(4 * i) for i in range(60)], audio="flac")
    data = bytearray(source.read_bytes())
    packets = [packet for packet in packets_of(source) if len(packet) > 100]
    for packet in packets[5:10]:
        begin = bytes(data).index(packet)
        data[begin : begin + len(packet)] = bytes(len(packet))
    source.write_bytes(data)
    warnings = animate(source, tmp_path / "out.mp4")
    assert len(warnings) == 1
    assert "The sound of a.mkv is damaged" in warnings[0]
    codec, _, finish, _ = sound_of(tmp_path / "out.mp4")
    assert codec == "aac"
    assert finish == pytest.approx(2.4, abs=0.05)


def test_missing_sound_file_is_a_warning(tmp_path: Path) -> None:
    track = AudioTrack(tmp_path / "missing.mp4")
    with open_writer(
        tmp_path / "a.mp4", width=64, height=48, fps=25, provenance=PROVENANCE, audio=track
    ) as writer:
        writer.write(level(1))
    assert "The output has no sound" in writer.warnings[0]


def test_truncated_source_keeps_its_sound_so_far(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (60, 48, 64, 3), np.uint8)
    source = write_clip(tmp_path / "a.mkv", list(noise), audio="aac")
    source.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    for suffix in ("mp4", "webm"):
        animate(source, tmp_path / f"out.{suffix}")
        _, _, finish, _ = sound_of(tmp_path / f"out.{suffix}")
        frames = list(VideoReader(tmp_path / f"out.{suffix}"))
        assert 0.5 < finish <= frames[-1].time + 0.1
