"""A speaker whose clock is wrong: what was due at a time is heard then, minutes later too."""

from __future__ import annotations

import asyncio
import sys
import time

import numpy as np
import pytest

from personalive.live.audio_devices import AudioDeviceError
from personalive.live.targets.speaker import Speaker
from personalive.server.sessions.audio_delay import BLOCK_SAMPLES, SAMPLE_RATE
from personalive.server.sessions.session_audio import SentAudio
from tests.live.sound_devices import MemorySpeaker, make_soundcard
from tests.live.targets.events import Events


async def feed(speaker: Speaker, seconds: float, lead: float, click_at: int) -> list[float]:
    """Send blocks as early as `lead`, one of a click every `click_at` blocks; return when the clicks were due."""
    begin, clicks = time.monotonic(), []
    for number in range(round(seconds * SAMPLE_RATE / BLOCK_SAMPLES)):
        due = begin + number * BLOCK_SAMPLES / SAMPLE_RATE
        await asyncio.sleep(max(due - time.monotonic(), 0))
        samples = np.zeros((BLOCK_SAMPLES, 2), np.int16)
        if number % click_at == click_at - 1:
            samples[:] = 16000
            clicks.append(due + lead)
        speaker.put_audio(SentAudio(samples, due, number * BLOCK_SAMPLES, due + lead))
    return clicks


def heard_clicks(device: MemorySpeaker) -> list[float]:
    found: list[float] = []
    for at, block in device.heard:
        loud = np.abs(block[:, 0]) > 0.3
        if loud.any() and (not found or at - found[-1] > 0.2):
            found.append(at + float(loud.argmax()) / SAMPLE_RATE)
    return found


@pytest.mark.parametrize("drift", [-0.005, 0.005])
def test_sound_is_heard_when_it_is_due_though_the_device_has_another_clock(
    monkeypatch: pytest.MonkeyPatch, drift: float
) -> None:
    """A drift that is fifty times a real one: without a correction, sound would be 35 ms off at the end."""
    device = MemorySpeaker(drift=drift)
    monkeypatch.setitem(sys.modules, "soundcard", make_soundcard([], [device]))
    leads: list[float] = []

    async def act() -> list[float]:
        speaker = Speaker(Events(), "memory", leads.append)
        await speaker.open()
        due = await feed(speaker, 7.0, 0.2, 25)
        await asyncio.sleep(0.3)
        await speaker.close()
        return due

    due = asyncio.run(act())
    heard = heard_clicks(device)
    assert leads
    assert all(0 < lead <= 0.5 for lead in leads)
    late = [min((at - wanted for at in heard), key=abs) for wanted in due]
    # A busy machine disturbs the fake device itself for a moment, so not every click counts.
    assert abs(float(np.median(late[-4:]))) < 0.025
    assert (device.opened, device.closed) == (1, 1)


def test_a_speaker_that_is_lost_is_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("personalive.live.targets.speaker._RETRY_S", 0.1)
    device, events = MemorySpeaker(limit=5), Events()
    monkeypatch.setitem(sys.modules, "soundcard", make_soundcard([], [device]))

    async def act() -> None:
        speaker = Speaker(events, "Memory Cable", lambda lead: None)
        await speaker.open()
        async with asyncio.timeout(20):
            while len(events.notices) < 2:
                await asyncio.sleep(0.01)
            device.limit = None
            while len(device.heard) < 20:
                await asyncio.sleep(0.01)
        await speaker.close()

    asyncio.run(act())
    assert events.notices[0] == "The sound is played on Memory Cable."
    assert events.notices[1].endswith("Trying again.")
    assert events.notices[-1] == "The speaker Memory Cable is back."
    assert events.ended == []


def test_a_speaker_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "soundcard", make_soundcard([], [MemorySpeaker()]))

    async def act() -> None:
        speaker = Speaker(Events(), "BlackHole", lambda lead: None)
        with pytest.raises(AudioDeviceError, match="no speaker 'BlackHole'"):
            await speaker.open()
        await speaker.close()

    asyncio.run(act())
