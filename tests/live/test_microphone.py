from __future__ import annotations

import asyncio
import contextlib
import itertools
import sys
import threading

import av
import numpy as np
import pytest

from personalive.live.audio_devices import AudioDeviceError
from personalive.live.capture import CaptureThread
from personalive.live.microphone import MicrophoneReader
from tests.live.sound_devices import MemoryMicrophone, make_soundcard


@pytest.mark.parametrize("channels", [1, 2, 6])
def test_blocks_come_with_times_that_are_counted(monkeypatch: pytest.MonkeyPatch, channels: int) -> None:
    microphone = MemoryMicrophone(
        channels=channels, sound=lambda begin, count: np.full(count, 0.5, np.float32)
    )
    monkeypatch.setitem(sys.modules, "soundcard", make_soundcard([microphone], []))
    with contextlib.closing(MicrophoneReader("default", threading.Event())) as reader:
        frames = list(itertools.islice(reader, 4))
    times = np.diff([float(frame.time or 0) for frame in frames])
    assert times == pytest.approx([0.01] * 3)
    assert {frame.layout.nb_channels for frame in frames} == {min(channels, 2)}
    assert np.abs(frames[0].to_ndarray() - 16384).max() <= 1
    assert (microphone.opened, microphone.closed) == (1, 1)


def test_a_microphone_that_is_unplugged_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    microphone = MemoryMicrophone()
    monkeypatch.setitem(sys.modules, "soundcard", make_soundcard([microphone], []))

    async def act() -> None:
        notices: list[str | None] = []
        frames: list[av.AudioFrame] = []
        capture = CaptureThread(
            "microphone", lambda stopping: MicrophoneReader("memory", stopping), frames.append, notices.append
        )
        await capture.start()
        await _until(lambda: len(frames) > 3)
        microphone.unplugged.set()
        await _until(lambda: len(notices) > 1)
        microphone.unplugged.clear()
        count = len(frames)
        await _until(lambda: len(frames) > count + 3)
        await capture.stop()
        times = [float(frame.time or 0) for frame in frames]
        assert times == sorted(times)
        assert notices[0] is None
        assert "Memory Microphone was lost" in str(notices[1])
        assert notices[-1] is None

    asyncio.run(act())


def test_one_that_cannot_be_opened_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    microphone = MemoryMicrophone()
    microphone.unplugged.set()
    monkeypatch.setitem(sys.modules, "soundcard", make_soundcard([microphone], []))
    with pytest.raises(AudioDeviceError, match="Memory Microphone cannot be opened"):
        MicrophoneReader("default", threading.Event())


async def _until(true: object) -> None:
    assert callable(true)
    async with asyncio.timeout(20):
        while not true():
            await asyncio.sleep(0.01)
