from __future__ import annotations

import threading
import time
from dataclasses import replace

import cv2
import numpy as np

from personalive.face.crop import CropBox
from personalive.live.canvas import Background, Canvas
from personalive.live.compositor import Compositor
from personalive.media import Image
from personalive.server.sessions.playout_buffer import SentFrame
from tests.live.targets.events import grey_frame


class Kept:
    """A target that keeps all frames, and takes its time over the first."""

    name = "kept"
    wants_still = True

    def __init__(self) -> None:
        self.frames: list[SentFrame] = []
        self.first, self.go_on, self.last = threading.Event(), threading.Event(), threading.Event()

    async def open(self) -> None:
        pass

    def put(self, frame: SentFrame) -> None:
        self.frames.append(frame)
        self.first.set()
        assert self.go_on.wait(20)
        if frame.time == 9:
            self.last.set()

    async def close(self) -> str | None:
        return None


def make_canvas() -> Canvas:
    grey = np.full((64, 64, 3), 9, np.uint8)
    return Canvas((128, 64), (64, 64), Background("colour"), portrait=grey, box=CropBox(0, 0, 64, 64))


def fail(error: Exception) -> None:
    raise error


def half_white() -> Image:
    image = np.zeros((64, 64, 3), np.uint8)
    image[:, :32] = 255
    return image


def test_frames_are_composed_mirrored_and_marked_with_planes_to_match() -> None:
    frame = replace(grey_frame(0), image=half_white(), time=1.5, captured_at=3.0)
    plain = Compositor(make_canvas(), mirror=False, watermark=False, on_error=fail).compose(frame)
    assert plain.image[32, 40].min() == 255
    assert plain.image[32, 90].max() == plain.image[32, 10].max() == 0
    assert (plain.time, plain.captured_at, plain.state) == (1.5, 3.0, frame.state)
    mirrored = Compositor(make_canvas(), mirror=True, watermark=False, on_error=fail).compose(frame)
    assert np.array_equal(mirrored.image, plain.image[:, ::-1])
    marked = Compositor(make_canvas(), mirror=True, watermark=True, on_error=fail).compose(frame)
    assert not np.array_equal(marked.image[40:, 40:], mirrored.image[40:, 40:])
    assert np.array_equal(marked.image[:32], mirrored.image[:32])
    for made in (plain, mirrored, marked):
        back = cv2.cvtColor(made.planes, cv2.COLOR_YUV2RGB_I420)
        assert np.abs(back.astype(int) - made.image).mean() < 8


def test_no_frame_is_composed_between_two_portraits() -> None:
    target = Kept()
    target.go_on.set()
    compositor = Compositor(make_canvas(), mirror=False, watermark=False, on_error=fail)
    compositor.targets = (target,)
    compositor.hold()
    compositor.put(grey_frame(50, (64, 64)))
    grey = np.full((64, 64, 3), 9, np.uint8)
    blue = Background("colour", (0, 0, 255))
    compositor.resume(Canvas((128, 64), (64, 64), blue, portrait=grey, box=CropBox(0, 0, 64, 64)))
    compositor.start()
    compositor.put(replace(grey_frame(100, (64, 64)), time=9))
    assert target.last.wait(20)
    compositor.stop()
    assert [int(frame.image[0, 64, 0]) for frame in target.frames] == [100]
    assert target.frames[0].image[0, 0].tolist() == [0, 0, 255]


def test_a_picture_that_is_held_back_for_its_sound_is_not_sent_before() -> None:
    """Frames wait for their time, and say when they were due then."""
    target, sent_at = Kept(), list[float]()

    def put(frame: SentFrame) -> None:
        sent_at.append(time.monotonic())
        take(frame)

    target.go_on.set()
    compositor = Compositor(make_canvas(), mirror=False, watermark=False, on_error=fail)
    take = target.put
    target.put = put  # type: ignore[method-assign]
    compositor.targets = (target,)
    compositor.delay = 0.3
    compositor.start()
    begin = time.monotonic()
    due = [begin, begin + 0.05, begin + 0.5]
    for number, at in zip((0, 1, 9), due, strict=True):
        compositor.put(replace(grey_frame(50, (64, 64)), time=number, due_at=at))
    assert target.last.wait(20)
    compositor.stop()
    assert target.frames[-1].due_at == due[-1] + 0.3
    for frame, at in zip(target.frames, sent_at, strict=True):
        assert at >= frame.due_at >= begin + 0.3


def test_the_newest_frame_wins_and_errors_are_told() -> None:
    target = Kept()
    errors: list[Exception] = []
    compositor = Compositor(make_canvas(), mirror=False, watermark=False, on_error=errors.append)
    compositor.targets = (target,)
    compositor.start()
    compositor.put(replace(grey_frame(0, (64, 64)), time=0))
    assert target.first.wait(20)
    for number in range(1, 10):
        compositor.put(replace(grey_frame(10 * number, (64, 64)), time=number))
    target.go_on.set()
    assert target.last.wait(20)
    assert [frame.time for frame in target.frames] == [0, 9]
    assert compositor.replaced == 8
    compositor.put(replace(grey_frame(0), image=np.zeros((0, 0, 3), np.uint8)))
    compositor._thread.join(20)
    assert len(errors) == 1
    compositor.stop()
