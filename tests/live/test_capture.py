from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from personalive.live.capture import CaptureThread, NewestFrame, reader_factory
from personalive.live.devices import SourceError
from personalive.live.source_spec import parse_source
from tests.live.rtsp_server import rtsp_camera
from tests.live.streams import MJPEG, Send, jpeg, part, serving, write_flashes


def frame(brightness: int) -> av.VideoFrame:
    return av.VideoFrame.from_ndarray(np.full((16, 16, 3), brightness, np.uint8), format="rgb24")


async def until(true: object, within: float = 20.0) -> None:
    assert callable(true)
    async with asyncio.timeout(within):
        while not true():
            await asyncio.sleep(0.01)


def test_a_stream_that_drops_comes_back() -> None:
    """Three connections, each cut after some pictures: each is told, and then opened again."""

    def script(number: int, send: Send) -> None:
        for _ in itertools.count() if number == 2 else range(5):
            send(part(jpeg(50 + 50 * number)))
            time.sleep(0.01)

    async def act() -> None:
        notices: list[str | None] = []
        seen: list[float] = []
        with serving(script, MJPEG) as url:
            capture = CaptureThread(
                "the stream",
                reader_factory(parse_source(url), "auto"),
                lambda got: seen.append(float(got.to_ndarray(format="gray").mean())),
                notices.append,
            )
            await capture.start()
            await until(lambda: any(value > 140 for value in seen))
            await capture.stop()
        assert notices[0] is None
        assert notices[-1] is None
        told = [notice for notice in notices if notice is not None]
        assert len(told) >= 2
        assert all(notice.endswith("Trying again.") for notice in told)

    asyncio.run(act())


def test_an_rtsp_camera_that_drops_comes_back() -> None:
    async def act() -> None:
        notices: list[str | None] = []
        times: list[float | None] = []
        with rtsp_camera() as server:
            spec = parse_source(server.url)
            capture = CaptureThread(
                spec.name, reader_factory(spec, "auto"), lambda got: times.append(got.time), notices.append
            )
            await capture.start()
            await until(lambda: len(times) > 10)
            assert all(time is not None for time in times)
            server.cut()
            await until(lambda: notices.count(None) == 2)
            count = len(times)
            await until(lambda: len(times) > count + 5)
            await capture.stop()
            assert server.started == 2
        assert notices[1] is not None
        assert notices[1].startswith(f"{server.url} ")

    asyncio.run(act())


class FakeDevice:
    """A camera that is unplugged after `count` frames, or for good."""

    repeats = False

    def __init__(self, count: int | None, stopping: threading.Event) -> None:
        self._count, self._stopping = count, stopping
        self.closed = False

    def __iter__(self) -> Iterator[av.VideoFrame]:
        for number in itertools.count():
            if number == self._count:
                raise SourceError("the camera was lost (No such device).")
            if self._stopping.wait(0.005):
                return
            yield frame(number % 256)

    def close(self) -> None:
        self.closed = True


def test_a_camera_that_is_unplugged_comes_back_when_it_is_there_again() -> None:
    devices: list[FakeDevice] = []
    attempts = itertools.count()

    def open_device(stopping: threading.Event) -> FakeDevice:
        attempt = next(attempts)
        if attempt in {1, 2}:
            raise SourceError("the camera is not there: connect it.")
        devices.append(FakeDevice(3 if attempt == 0 else None, stopping))
        return devices[-1]

    async def act() -> None:
        notices: list[str | None] = []
        capture = CaptureThread("camera", open_device, lambda got: None, notices.append)
        await capture.start()
        await until(lambda: len(notices) == 5)
        await capture.stop()
        assert notices == [
            None,
            "the camera was lost (No such device). Trying again.",
            "the camera is not there: connect it. Trying again.",
            "the camera is not there: connect it. Trying again.",
            None,
        ]
        assert [device.closed for device in devices] == [True, True]

    asyncio.run(act())


@pytest.mark.parametrize("error", [SourceError("the camera is in use."), ZeroDivisionError("a defect")])
def test_a_source_that_cannot_be_opened_at_first_is_an_error(error: Exception) -> None:
    def open_device(stopping: threading.Event) -> FakeDevice:
        raise error

    async def act() -> None:
        capture = CaptureThread("camera", open_device, lambda got: None, lambda notice: None)
        with pytest.raises(type(error), match=str(error)):
            await capture.start()
        await capture.stop()

    asyncio.run(act())


def test_the_event_loop_gets_the_newest_frame_only() -> None:
    async def act() -> None:
        got: list[tuple[av.VideoFrame, float]] = []
        newest = NewestFrame(lambda shown, at: got.append((shown, at)))
        frames = [frame(number) for number in range(50)]
        for each in frames:  # the loop has no turn meanwhile
            newest.put(each)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert [shown for shown, _ in got] == [frames[-1]]
        newest.put(frames[0])
        await until(lambda: len(got) == 2)
        assert got[1][1] >= got[0][1]

    asyncio.run(act())


def test_sound_of_a_stream_that_comes_back_has_later_times(tmp_path: Path) -> None:
    """The stream begins once more at 0; what waits for sound would take it for what it has had."""
    path = tmp_path / "flashes.ts"
    write_flashes(path, 1.0)
    stream = path.read_bytes()
    times: list[float] = []

    async def act() -> None:
        with serving(lambda number, send: send(stream), "video/mp2t") as url:
            opened = reader_factory(
                parse_source(url), "auto", lambda frame, at: times.append(frame.time or 0)
            )
            capture = CaptureThread("the stream", opened, lambda got: None, lambda notice: None)
            await capture.start()
            await until(lambda: bool(times) and times[-1] > times[0] + 1000)
            await capture.stop()

    asyncio.run(act())
    assert times == sorted(times)
