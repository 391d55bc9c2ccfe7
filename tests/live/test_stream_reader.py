from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path

import av
import numpy as np
import pytest

from personalive.live.devices import SourceError
from personalive.live.source_spec import parse_source
from personalive.live.stream_reader import StreamReader, open_stream
from tests.live.streams import MJPEG, Send, jpeg, mpegts, part, serving, write_flashes


def brightness(frame: av.VideoFrame) -> float:
    return float(frame.to_ndarray(format="gray").mean())


def opened(url: str, stopping: threading.Event | None = None) -> StreamReader:
    spec = parse_source(url)
    return StreamReader(open_stream(spec), spec.name, stopping or threading.Event())


def test_a_slow_reader_gets_the_newest_frame_not_the_next() -> None:
    """Two hundred pictures arrive while the first is looked at: the next is one of the last."""
    sent, done = threading.Event(), threading.Event()

    def script(number: int, send: Send) -> None:
        for index in range(200):
            send(part(jpeg(20 + index)))
        sent.set()
        done.wait(30)

    with serving(script, MJPEG) as url, contextlib.closing(opened(url)) as reader:
        frames = iter(reader)
        first = next(frames)
        assert first.time is None  # what FFmpeg says of the time of such a picture is invented
        assert sent.wait(20)
        time.sleep(0.3)  # for the thread that reads packets
        later = brightness(next(frames))
        done.set()
    assert brightness(first) < 190
    assert later > 214


def test_a_stream_with_references_is_decoded_to_its_end() -> None:
    """What FFmpeg looks at to know the stream is not shown: by then it is old."""
    stream = mpegts(50)

    def script(number: int, send: Send) -> None:
        for start in range(0, len(stream), 564):
            send(stream[start : start + 564])
            time.sleep(0.005)

    seen: list[float] = []
    with serving(script, "video/mp2t") as url, contextlib.closing(opened(url)) as reader:
        with contextlib.suppress(SourceError):  # the server closes the connection
            seen.extend(brightness(frame) for frame in reader)
        assert not reader.repeats
    assert seen == sorted(seen)
    assert seen[-1] > 220


def test_reading_ends_when_it_is_told_to() -> None:
    stopping = threading.Event()

    def script(number: int, send: Send) -> None:
        while not stopping.is_set():
            send(part(jpeg(100)))
            time.sleep(0.02)

    with serving(script, MJPEG) as url, contextlib.closing(opened(url, stopping)) as reader:
        for count, _ in enumerate(reader):
            if count == 3:
                stopping.set()
            assert count < 10


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("rtsp://user:secret@127.0.0.1:9/live", "rtsp://127.0.0.1:9/live cannot be reached"),
        ("http://127.0.0.1:9/video", "nothing listens there"),
    ],
)
def test_an_address_where_nobody_listens(url: str, message: str) -> None:
    with pytest.raises(SourceError) as raised:
        open_stream(parse_source(url))
    assert message in str(raised.value)
    assert "secret" not in str(raised.value)


def test_text_is_no_video() -> None:
    with (
        serving(lambda number, send: send(b"<html>no video</html>" * 50), "text/html") as url,
        pytest.raises(SourceError, match="no video stream that can be read"),
    ):
        open_stream(parse_source(url))


def test_a_playlist_cannot_name_a_local_file() -> None:
    playlist = b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"
    with (
        serving(lambda number, send: send(playlist), "application/vnd.apple.mpegurl") as url,
        pytest.raises(SourceError),
    ):
        open_stream(parse_source(url))


def test_the_sound_of_a_stream_is_passed_on_beside_its_picture(tmp_path: Path) -> None:
    path = tmp_path / "flashes.ts"
    write_flashes(path, 2.5)
    stream = path.read_bytes()
    sound: list[tuple[av.AudioFrame, float | None]] = []

    def script(number: int, send: Send) -> None:
        for start in range(0, len(stream), 5640):
            send(stream[start : start + 5640])
            time.sleep(0.005)

    with serving(script, "video/mp2t") as url:
        spec = parse_source(url)
        reader = StreamReader(
            open_stream(spec), spec.name, threading.Event(), lambda frame, at: sound.append((frame, at))
        )
        with contextlib.closing(reader), contextlib.suppress(SourceError):  # the server closes the connection
            shown = [frame.time for frame in reader]
            assert len(shown) > 20
    times = [at for _, at in sound if at is not None]
    assert len(times) == len(sound) > 50
    assert times == sorted(times)
    assert any(np.abs(frame.to_ndarray()).max() > 0.3 for frame, _ in sound)


def test_a_stream_without_sound_is_refused_where_sound_is_wanted() -> None:
    with serving(lambda number, send: send(mpegts(20)), "video/mp2t") as url:
        spec = parse_source(url)
        with pytest.raises(SourceError, match="has no sound: leave --sound out"):
            StreamReader(open_stream(spec), spec.name, threading.Event(), lambda frame, at: None)
