from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import PIL.Image
import pytest

from personalive.errors import InputError, MediaError, MediaTooLargeError, UnsupportedMediaError
from personalive.media import VideoReader, open_driving, resample

from .clips import COLOURS, level, patch_colours, patches, tell, write_clip

RAMP = [level(20 + 6 * i) for i in range(30)]


def ramp(reader: VideoReader) -> list[int]:
    return [round((tell(frame.image) - 20) / 6) for frame in reader]


def colour_error(path: Path) -> int:
    with VideoReader(path) as reader:
        image = next(iter(reader)).image
    assert image.flags.c_contiguous
    assert image.dtype == np.uint8
    return int(np.abs(patch_colours(image) - COLOURS).max())


@pytest.mark.parametrize(
    ("suffix", "codec", "pixel_format"),
    [
        ("mp4", "libx264", "yuv420p"),
        ("mp4", "libx264", "yuv422p"),
        ("mp4", "libx264", "yuv444p"),
        ("mp4", "libx264", "yuv420p10le"),
        ("mp4", "libx265", "yuv420p10le"),
        ("mov", "prores_ks", "yuv422p10le"),
        ("mov", "qtrle", "rgb24"),
        ("mkv", "ffv1", "yuv444p16le"),
        ("mkv", "ffv1", "gbrp10le"),
        ("mkv", "ffv1", "bgra"),
        ("mkv", "libx264rgb", "rgb24"),
        ("avi", "mpeg4", "yuv420p"),
        ("avi", "rawvideo", "bgr24"),
        ("avi", "mjpeg", "yuvj420p"),
        ("webm", "libvpx-vp9", "yuv420p"),
        ("webm", "libvpx", "yuv420p"),
    ],
)
def test_pixel_formats(tmp_path: Path, suffix: str, codec: str, pixel_format: str) -> None:
    if codec not in av.codecs_available:
        pytest.skip(f"no {codec} in this build of FFmpeg")
    full = pixel_format.startswith("yuvj")
    path = write_clip(
        tmp_path / f"a.{suffix}",
        [patches()] * 3,
        codec=codec,
        pixel_format=pixel_format,
        matrix=6,
        full_range=full,
    )
    # The lossier codecs are not asked for their best here.
    assert colour_error(path) <= (12 if codec in {"mpeg4", "mjpeg", "libvpx", "libx265"} else 3)


@pytest.mark.parametrize(("codec", "pixel_format"), [("ffv1", "gray"), ("ffv1", "gray16le")])
def test_grey(tmp_path: Path, codec: str, pixel_format: str) -> None:
    path = write_clip(tmp_path / "a.mkv", [level(90)] * 2, codec=codec, pixel_format=pixel_format)
    image = next(iter(VideoReader(path))).image
    assert np.abs(image.astype(int) - 90).max() <= 1


@pytest.mark.parametrize("matrix", [1, 6])
@pytest.mark.parametrize("full_range", [False, True])
def test_colours_follow_the_flags(tmp_path: Path, matrix: int, full_range: bool) -> None:
    path = write_clip(tmp_path / "a.mp4", [patches()] * 2, matrix=matrix, full_range=full_range)
    assert colour_error(path) <= 3


@pytest.mark.parametrize("size", [(63, 47), (17, 17), (33, 48), (64, 31)])
def test_odd_sizes(tmp_path: Path, size: tuple[int, int]) -> None:
    path = write_clip(tmp_path / "a.mkv", [level(90, *size)] * 2, codec="ffv1", pixel_format="yuv420p")
    with VideoReader(path) as reader:
        assert (reader.info.width, reader.info.height) == size
        assert {frame.image.shape for frame in reader} == {(size[1], size[0], 3)}


@pytest.mark.parametrize("rotation", [0, 90, 180, -90])
@pytest.mark.parametrize("mirror", [False, True])
def test_rotation(tmp_path: Path, rotation: int, mirror: bool) -> None:
    upright = patches(64, 48)
    stored = np.ascontiguousarray(np.rot90(upright[:, ::-1] if mirror else upright, -rotation // 90))
    path = write_clip(tmp_path / "a.mp4", [stored] * 3, rotation=rotation, mirror=mirror)
    with VideoReader(path) as reader:
        assert (reader.info.width, reader.info.height) == (64, 48)
        if not mirror:
            assert reader.info.rotation == -rotation % 360
    assert colour_error(path) <= 3


def test_info(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", RAMP, audio="aac", fps=Fraction(30000, 1001))
    info = VideoReader(path).info
    assert (info.width, info.height, info.frames, info.has_audio) == (64, 48, 30, True)
    assert info.fps == pytest.approx(30000 / 1001)
    assert info.duration == pytest.approx(1.001, abs=0.002)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov", "webm", "avi", "gif"])
def test_all_frames_in_order(tmp_path: Path, suffix: str) -> None:
    codec = {"webm": "libvpx-vp9", "avi": "mpeg4", "gif": "gif"}.get(suffix, "libx264")
    pixel_format = "pal8" if suffix == "gif" else "yuv420p"
    path = write_clip(tmp_path / f"a.{suffix}", RAMP, codec=codec, pixel_format=pixel_format)
    with VideoReader(path) as reader:
        frames = list(reader)
        assert reader.warnings == []
        assert ramp(reader) == list(range(30))
    assert [frame.index for frame in frames] == list(range(30))
    assert [frame.time for frame in frames] == pytest.approx([i / 25 for i in range(30)], abs=0.001)
    assert frames[-1].time + frames[-1].duration == pytest.approx(1.2, abs=0.01)


def test_variable_rate_keeps_its_times(tmp_path: Path) -> None:
    times = [Fraction(t, 1000) for t in (0, 40, 50, 400, 433, 1000)]
    path = write_clip(tmp_path / "a.mkv", RAMP[:6], times=times)
    frames = list(VideoReader(path))
    assert [frame.time for frame in frames] == pytest.approx([float(t) for t in times])
    assert [frame.duration for frame in frames[:-1]] == pytest.approx([0.04, 0.01, 0.35, 0.033, 0.567])


def test_stream_that_starts_late_begins_at_zero(tmp_path: Path) -> None:
    times = [Fraction(t, 1000) for t in (5000, 5040, 5080)]
    path = write_clip(tmp_path / "a.mkv", RAMP[:3], times=times)
    assert [frame.time for frame in VideoReader(path)] == pytest.approx([0, 0.04, 0.08])


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "webm", "gif"])
@pytest.mark.parametrize(("start", "end"), [(0.0, 0.4), (0.4, 0.8), (0.96, None), (1.16, None), (0.52, 0.56)])
def test_spans_are_exact(tmp_path: Path, suffix: str, start: float, end: float | None) -> None:
    codec = {"webm": "libvpx-vp9", "gif": "gif"}.get(suffix, "libx264")
    pixel_format = "pal8" if suffix == "gif" else "yuv420p"
    path = write_clip(tmp_path / f"a.{suffix}", RAMP, codec=codec, pixel_format=pixel_format)
    with VideoReader(path, start=start, end=end) as reader:
        wanted = list(range(round(start * 25), 30 if end is None else round(end * 25)))
        assert ramp(reader) == wanted
        frames = list(reader)
    assert frames[0].time == pytest.approx(start, abs=0.001)
    assert frames[-1].time + frames[-1].duration == pytest.approx(end or 1.2, abs=0.011)


def test_a_span_begins_with_the_frame_on_screen(tmp_path: Path) -> None:
    times = [Fraction(t, 1000) for t in (0, 1000, 1040)]
    path = write_clip(tmp_path / "a.mkv", RAMP[:3], times=times)
    with VideoReader(path, start=0.6, max_frames=2) as reader:
        frames = list(reader)
        assert ramp(reader) == [0, 1]
    assert [frame.time for frame in frames] == pytest.approx([0.6, 1.0])
    assert frames[0].duration == pytest.approx(0.4)


def test_max_frames(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", RAMP)
    assert ramp(VideoReader(path, max_frames=3)) == [0, 1, 2]
    assert ramp(VideoReader(path, start=0.4, max_frames=1)) == [10]


@pytest.mark.parametrize(
    "span", [{"start": -1.0}, {"start": float("nan")}, {"start": 2.0, "end": 1.0}, {"max_frames": 0}]
)
def test_senseless_spans(tmp_path: Path, span: dict[str, float]) -> None:
    path = write_clip(tmp_path / "a.mp4", RAMP[:2])
    with pytest.raises(InputError):
        VideoReader(path, **span)  # type: ignore[arg-type]


def test_start_after_the_end(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", RAMP[:5])
    with pytest.raises(MediaError, match="there is nothing after 9 s"):
        list(VideoReader(path, start=9))


def test_truncated_file_gives_what_is_there(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (60, 48, 64, 3), np.uint8)
    for suffix in ("mkv", "avi"):
        path = write_clip(tmp_path / f"driving.{suffix}", list(noise), codec="mpeg4")
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
        with VideoReader(path) as reader:
            count = len(list(reader))
            assert 20 < count < 50
            assert len(reader.warnings) == 1
            assert f"driving.{suffix} is damaged after" in reader.warnings[0]
            assert f"the {count} frames before that are used" in reader.warnings[0]


def test_truncated_mp4_with_its_index_in_front(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (60, 48, 64, 3), np.uint8)
    whole = write_clip(tmp_path / "whole.mp4", list(noise))
    path = tmp_path / "front.mp4"
    with av.open(str(whole)) as source, av.open(str(path), "w", options={"movflags": "faststart"}) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with VideoReader(path) as reader:
        assert 10 < len(list(reader)) < 45
        assert len(reader.warnings) == 1
        assert "damaged after" in reader.warnings[0]
        # Stopping before the damage is no reason to warn.
    with VideoReader(path, end=0.4) as reader:
        assert len(list(reader)) == 10
        assert reader.warnings == []


def test_damage_in_the_middle(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (60, 48, 64, 3), np.uint8)
    path = write_clip(tmp_path / "a.avi", list(noise), codec="mjpeg", pixel_format="yuvj420p")
    data = bytearray(path.read_bytes())
    begin = data.index(b"00dc", len(data) // 2) + 8
    size = int.from_bytes(data[begin - 4 : begin], "little")
    data[begin : begin + size] = bytes(size)
    path.write_bytes(data)
    with VideoReader(path) as reader:
        assert len(list(reader)) == 59
        assert reader.warnings == ["a.avi is damaged: one frame could not be decoded."]
    with VideoReader(path, end=2) as reader:
        assert len(list(reader)) == 49
        assert reader.warnings == ["a.avi is damaged: one frame could not be decoded."]


def test_files_that_are_no_video(tmp_path: Path) -> None:
    empty, garbage, sound, index = (tmp_path / name for name in ("empty", "garbage.mp4", "a.m4a", "cut.mp4"))
    empty.touch()
    garbage.write_bytes(np.random.default_rng(0).bytes(5000))
    with av.open(str(sound), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=48000)
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 4800), np.float32), format="fltp", layout="stereo")
        frame.sample_rate = 48000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    index.write_bytes(write_clip(tmp_path / "b.mp4", RAMP).read_bytes()[:3000])
    for path, words in (
        (empty, "is empty"),
        (garbage, "cannot be read as a video"),
        (sound, "sound only"),
        (index, "cut short or damaged"),
        (tmp_path / "missing.mp4", "does not exist"),
    ):
        with pytest.raises(MediaError, match=words):
            VideoReader(path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{clip}\n#EXT-X-ENDLIST\n"),
        ("a.mp4", "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{clip}\n#EXT-X-ENDLIST\n"),
        ("a.txt", "ffconcat version 1.0\nfile '{clip}'\n"),
        ("a.ffconcat", "ffconcat version 1.0\nfile '{clip}'\n"),
        ("a.sdp", "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"),
        ("a.mpd", '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"></MPD>'),
    ],
)
def test_playlists_are_refused(tmp_path: Path, name: str, text: str) -> None:
    clip = write_clip(tmp_path / "clip.mp4", RAMP[:3])
    (tmp_path / name).write_text(text.format(clip=clip))
    with pytest.raises(MediaError):
        VideoReader(tmp_path / name)


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:9/a.mp4", "concat:a.mp4|b.mp4", "data:video/mp4;base64,AAAA"]
)
def test_addresses_are_only_names_of_files(
    tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MediaError, match=r"does not exist|is an address: download it first"):
        VideoReader(address)


def test_other_containers_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.nut"
    write_clip(path, RAMP[:3], codec="ffv1", pixel_format="yuv420p")
    with pytest.raises(UnsupportedMediaError, match="MP4, MOV"):
        VideoReader(path)


def test_too_many_pixels(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.gif", [level(0, 16, 16)], codec="gif", pixel_format="pal8")
    grown = bytearray(path.read_bytes())
    grown[6:10] = (7000).to_bytes(2, "little") * 2
    path.write_bytes(grown)
    with pytest.raises(MediaTooLargeError, match="megapixels"):
        VideoReader(path)


@pytest.mark.parametrize(
    ("size", "inner"), [((128, 96), (64, 48)), ((96, 80), (58, 48)), ((32, 64), (24, 48))]
)
def test_size_that_changes_midway_is_fitted_into_the_first(
    tmp_path: Path, size: tuple[int, int], inner: tuple[int, int]
) -> None:
    # Motion JPEG frames each carry their own size.
    big = write_clip(tmp_path / "b.avi", [level(90, *size)] * 3, codec="mjpeg", pixel_format="yuvj420p")
    path = tmp_path / "a.avi"
    with av.open(str(path), "w") as target:
        stream = target.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        frame = av.VideoFrame.from_ndarray(level(30), format="rgb24").reformat(format="yuvj420p")
        frame.pts = 0
        target.mux(stream.encode(frame))
        target.mux(stream.encode(None))
        with av.open(str(big)) as source:
            for packet in source.demux(video=0):
                if packet.dts is not None:
                    packet.pts = packet.dts = packet.dts + 1
                    packet.stream = stream
                    target.mux(packet)
    with VideoReader(path) as reader:
        frames = list(reader)
        fitted = [] if inner == (64, 48) else ["3 of the pictures in a.avi have another shape than the first"]
        assert [warning.partition(":")[0] for warning in reader.warnings] == fitted
    assert [shown.image.shape for shown in frames] == [(48, 64, 3)] * 4
    assert tell(frames[0].image) == pytest.approx(30, abs=3)
    left, top = (64 - inner[0]) // 2, (48 - inner[1]) // 2
    for shown in frames[1:]:
        part = shown.image[top : top + inner[1], left : left + inner[0]]
        assert tell(part) == pytest.approx(90, abs=4)
        assert int(shown.image.sum()) == int(part.sum())  # black beside it


def test_pixels_that_are_not_square(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(3, 2)
        for index in range(3):
            frame = av.VideoFrame.from_ndarray(level(90), format="rgb24")
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with VideoReader(path) as reader:
        assert (reader.info.width, reader.info.height) == (96, 48)
        assert next(iter(reader)).image.shape == (48, 96, 3)


def test_still_is_a_clip_of_one_frame(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    PIL.Image.fromarray(patches()).save(path)
    with open_driving(path, start=3, end=4) as driving:
        frames = list(driving)
        assert (driving.info.fps, driving.info.frames, driving.info.has_audio) == (25, 1, False)
    assert len(frames) == 1
    assert np.array_equal(frames[0].image, patches())
    still = next(iter(open_driving(path)))
    assert still.time == 0
    assert still.duration == pytest.approx(0.04)


@pytest.mark.parametrize("kind", ["webp", "png"])
def test_animated_pictures(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    frames = [PIL.Image.fromarray(image) for image in RAMP[:5]]
    frames[0].save(
        path, save_all=True, append_images=frames[1:], duration=[40, 100, 40, 40, 60], lossless=True
    )
    with VideoReader(path) as reader:
        assert ramp(reader) == [0, 1, 2, 3, 4]
        assert [frame.time for frame in reader] == pytest.approx([0, 0.04, 0.14, 0.18, 0.22])
        assert reader.info.fps == 25
    assert ramp(VideoReader(path, start=0.14, max_frames=2)) == [2, 3]


def test_folder_of_pictures(tmp_path: Path) -> None:
    for number, image in enumerate(RAMP[:12]):
        PIL.Image.fromarray(image).save(tmp_path / f"frame-{number}.png")
    (tmp_path / "notes.txt").write_text("not a picture")
    (tmp_path / "frame-5.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    with VideoReader(tmp_path) as reader:
        assert ramp(reader) == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11]
        assert reader.info.frames == 12
        assert "frame-5.png" in reader.warnings[0]
        assert next(f.duration for f in reader if f.index == 4) == pytest.approx(0.08)
    assert ramp(VideoReader(tmp_path, start=0.32)) == [8, 9, 10, 11]


def test_pictures_of_another_shape_are_fitted_not_squeezed(tmp_path: Path) -> None:
    for number, size in enumerate([(64, 48), (32, 24), (40, 80), (640, 480)]):
        PIL.Image.fromarray(patches(*size)).save(tmp_path / f"{number}.png")
    with VideoReader(tmp_path) as reader:
        frames = list(reader)
        assert reader.warnings == [
            f"One picture in {tmp_path.name} has another shape than the first: it is fitted into 64×48."
        ]
    assert {frame.image.shape for frame in frames} == {(48, 64, 3)}
    assert np.abs(patch_colours(frames[2].image[:, 20:44]) - COLOURS).max() <= 3
    assert not frames[2].image[:, :20].any()
    assert not frames[2].image[:, 44:].any()


@pytest.mark.parametrize("kind", ["webp", "png", "gif"])
def test_a_long_first_picture_does_not_make_the_rate(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    frames = [PIL.Image.fromarray(image) for image in RAMP[:12]]
    durations = [1000, *[40] * 11]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=durations, lossless=True)
    with VideoReader(path) as reader:
        assert reader.info.fps == 25
        assert reader.info.duration == pytest.approx(1.44)
        assert len(list(reader)) == 12
        assert len(list(resample(reader, 25))) == 36


@pytest.mark.parametrize("kind", ["webp", "png", "gif"])
def test_pictures_that_ask_for_no_time_get_a_tenth_of_a_second(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    frames = [PIL.Image.fromarray(image) for image in RAMP[:6]]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=0, lossless=True)
    with VideoReader(path) as reader:
        assert reader.info.fps == 10
        assert [frame.time for frame in reader] == pytest.approx([k / 10 for k in range(6)])


def test_a_still_beside_an_animation_is_no_part_of_it(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    frames = [PIL.Image.fromarray(image) for image in RAMP[:4]]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=[50, 50, 50], default_image=True)
    with VideoReader(path) as reader:
        assert ramp(reader) == [1, 2, 3]
        assert (reader.info.fps, reader.info.frames) == (20, 3)


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize("stored", [0, 90])
def test_frames_are_turned_on_demand(tmp_path: Path, degrees: int, stored: int) -> None:
    path = write_clip(tmp_path / "a.mp4", [patches()] * 2, rotation=-stored)
    with VideoReader(path) as plain, VideoReader(path, rotate=degrees) as reader:
        assert reader.info.rotation == (stored + degrees) % 360
        frame, before = next(iter(reader)), next(iter(plain))
        assert (reader.info.height, reader.info.width) == frame.image.shape[:2]
        assert np.array_equal(frame.image, np.rot90(before.image, -degrees // 90))
    with pytest.raises(InputError, match="rotated by 0, 90, 180 or 270"):
        VideoReader(path, rotate=45)


def test_folder_without_pictures(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="no JPEG, PNG, WebP, HEIC or AVIF"):
        VideoReader(tmp_path)
    (tmp_path / "1.png").write_bytes(b"")
    with pytest.raises(MediaError, match="None of the pictures"):
        VideoReader(tmp_path)


def test_closing(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", RAMP)
    reader = VideoReader(path)
    frames = iter(reader)
    next(frames)
    reader.close()
    reader.close()
    with pytest.raises(MediaError, match="closed"):
        list(reader)


def test_ffmpeg_says_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = write_clip(
        tmp_path / "a.mkv", list(np.random.default_rng(0).integers(0, 255, (20, 48, 64, 3), np.uint8))
    )
    path.write_bytes(path.read_bytes()[:30_000])
    list(VideoReader(path))
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err == ""
